"""What the flags of `tools/train.py` do to a config."""

from __future__ import annotations

from argparse import Namespace

import pytest
import torch
from mmengine.config import Config

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.config import load_config
from gn_det.workbench.runtime import runner
from tests.running import CONFIG, REPOSITORY


@pytest.fixture
def cfg(tmp_path) -> Config:
    return Config(
        dict(
            work_dir=str(tmp_path),
            optim_wrapper=dict(
                type='OptimWrapper', optimizer=dict(type='SGD', lr=0.02)
            ),
            auto_scale_lr=dict(enable=False, base_batch_size=16),
        )
    )


def test_amp_scales_the_loss_dynamically(cfg, monkeypatch):
    monkeypatch.setattr(runner, 'get_device', lambda: 'cuda')
    runner.enable_amp(cfg)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'


def test_amp_needs_a_gpu(cfg, monkeypatch):
    monkeypatch.setattr(runner, 'get_device', lambda: 'cpu')
    with pytest.raises(UserError, match='--amp needs a GPU'):
        runner.enable_amp(cfg)
    assert cfg.optim_wrapper.type == 'OptimWrapper'


def test_lr_scaling_needs_the_batch_size_the_rate_is_meant_for(cfg):
    runner.enable_lr_scaling(cfg)
    assert cfg.auto_scale_lr.enable
    cfg.auto_scale_lr = {}
    with pytest.raises(UserError, match=r'has no auto_scale_lr\.base_batch_size'):
        runner.enable_lr_scaling(cfg)


def test_no_resume_leaves_the_config_alone(cfg):
    runner.set_resume(cfg, None)
    assert 'resume' not in cfg


def test_resume_auto_without_a_checkpoint_starts_anew(cfg):
    cfg.load_from = 'pretrained.pth'
    runner.set_resume(cfg, 'auto')
    assert (cfg.resume, cfg.load_from) == (False, 'pretrained.pth')


@pytest.mark.parametrize('named', [False, True], ids=['auto', 'named'])
def test_resume_from_a_checkpoint(cfg, tmp_path, named):
    path = tmp_path / 'epoch_3.pth'
    meta = dict(epoch=3, iter=30, seed=7)
    state = dict(w=torch.zeros(1))
    torch.save(dict(state_dict=state, meta=meta, optimizer={}), path)
    runner.set_resume(cfg, str(path) if named else 'auto')
    assert (cfg.resume, cfg.load_from) == (True, str(path))
    # What the order of the images comes from, before the loader is built.
    assert cfg.randomness.seed == 7


def test_channels_last_is_a_setting_of_the_fused_detectors(cfg):
    cfg.model = dict(type='FusedMaskRCNN')
    runner.enable_channels_last(cfg)
    assert cfg.model.channels_last


def test_channels_last_names_a_detector_without_the_setting(cfg):
    cfg.model = dict(type='RetinaNet')
    with pytest.raises(UserError, match=r'is RetinaNet.*works with .*FusedMaskRCNN'):
        runner.enable_channels_last(cfg)
    assert 'channels_last' not in cfg.model


@pytest.mark.parametrize('show', [False, True])
def test_show_needs_a_display(cfg, monkeypatch, show):
    cfg.default_hooks = dict(visualization=dict(type='DetVisualizationHook'))
    cfg.visualizer = dict(type='DetLocalVisualizer')
    args = Namespace(show=show, show_dir='painted', wait_time=2)
    monkeypatch.setattr(runner.matplotlib, 'get_backend', lambda: 'agg')
    if show:
        with pytest.raises(UserError, match='there is no display; --show-dir'):
            runner.show_predictions(cfg, args)
    monkeypatch.setattr(runner.matplotlib, 'get_backend', lambda: 'tkagg')
    runner.show_predictions(cfg, args)
    assert cfg.default_hooks.visualization.get('show', False) is show


@pytest.fixture
def whole_cfg(shapes, tmp_path) -> Config:
    """The quickstart's config with data and a checkpoint."""
    torch.save(dict(state_dict=dict(w=torch.zeros(1))), tmp_path / 'w.pth')
    work_dir = str(tmp_path / 'work')
    whole = load_config(str(REPOSITORY / CONFIG), {'data_root': str(shapes)}, work_dir)
    whole.launcher = 'none'
    whole.load_from = str(tmp_path / 'w.pth')
    return whole


@pytest.mark.parametrize('run', [runner.run_test, runner.run_training])
def test_the_work_directory_is_tried_before_anything_is_built(
    whole_cfg, monkeypatch, run
):
    monkeypatch.setattr(runner.Runner, 'from_cfg', lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(whole_cfg)
    whole_cfg.work_dir = whole_cfg.load_from
    with pytest.raises(UserError, match=r'^--work-dir .*w\.pth is a file'):
        run(whole_cfg)


def test_the_file_for_predictions_is_tried_before_anything_is_built(
    whole_cfg, monkeypatch
):
    monkeypatch.setattr(runner.Runner, 'from_cfg', lambda _: 1 / 0)
    with pytest.raises(UserError, match=r'^--out /proc/x cannot be written to'):
        runner.run_test(whole_cfg, '/proc/x/p.pkl')
    with pytest.raises(ZeroDivisionError):
        runner.run_test(whole_cfg, whole_cfg.work_dir + '/new/p.pkl')


def test_a_setting_that_no_class_has(whole_cfg):
    whole_cfg.model.typo = 1
    with pytest.raises(UserError, match=r'^model\.typo: \w+ has no such setting'):
        runner.run_test(whole_cfg)

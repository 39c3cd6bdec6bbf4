"""What the flags of `tools/train.py` do to a config."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config

from gn_det.errors import UserError
from gn_det.runtime import runner


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
    runner.set_resume(cfg, 'auto')
    assert (cfg.resume, cfg.load_from) == (False, None)


@pytest.mark.parametrize('named', [False, True], ids=['auto', 'named'])
def test_resume_from_a_checkpoint(cfg, tmp_path, named):
    path = tmp_path / 'epoch_3.pth'
    torch.save(dict(state_dict=dict(w=torch.zeros(1))), path)
    runner.set_resume(cfg, str(path) if named else 'auto')
    assert (cfg.resume, cfg.load_from) == (True, str(path))


def test_channels_last_is_a_setting_of_the_fused_detectors(cfg):
    cfg.model = dict(type='FusedMaskRCNN')
    runner.enable_channels_last(cfg)
    assert cfg.model.channels_last


def test_channels_last_names_a_detector_without_the_setting(cfg):
    cfg.model = dict(type='RetinaNet')
    with pytest.raises(UserError, match=r'is RetinaNet.*works with .*FusedMaskRCNN'):
        runner.enable_channels_last(cfg)
    assert 'channels_last' not in cfg.model

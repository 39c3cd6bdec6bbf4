"""Schedules counted in iterations follow the batch size."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config

from gn_det.workbench.errors import UserError
from gn_det.workbench.runtime import lr_scaling
from gn_det.workbench.runtime.lr_scaling import check_resumed_length, stretch_iterations


@pytest.fixture
def cfg() -> Config:
    """A hundred iterations of 16 images, two of them in each process."""
    return Config(
        dict(
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=100, val_interval=20),
            param_scheduler=[
                dict(type='LinearLR', begin=0, end=10, by_epoch=False),
                dict(type='MultiStepLR', end=100, milestones=[60, 90], by_epoch=False),
            ],
            train_dataloader=dict(batch_size=2),
            default_hooks=dict(
                checkpoint=dict(by_epoch=False, interval=50, max_keep_ckpts=3)
            ),
            auto_scale_lr=dict(base_batch_size=16),
        ),
        cfg_text='read already',
        filename='mine.py',
    )


@pytest.fixture
def said(monkeypatch) -> list[str]:
    lines = []
    monkeypatch.setattr(lr_scaling, 'print_log', lambda line, **_: lines.append(line))
    return lines


def test_everything_moves_and_one_line_says_so(cfg, said):
    stretch_iterations(cfg)
    assert cfg.train_cfg == dict(
        type='IterBasedTrainLoop', max_iters=800, val_interval=160
    )
    warm_up, steps = cfg.param_scheduler
    assert (warm_up.begin, warm_up.end) == (0, 80)
    assert (steps.end, steps.milestones) == (800, [480, 720])
    assert cfg.default_hooks.checkpoint.interval == 400
    assert cfg.default_hooks.checkpoint.max_keep_ckpts == 3
    (line,) = said
    assert '2 images an iteration instead of 16' in line
    assert '800 iterations instead of 100' in line


@pytest.mark.parametrize(
    ('launcher', 'variable'),
    [
        ('pytorch', 'WORLD_SIZE'),
        ('slurm', 'SLURM_NTASKS'),
        ('mpi', 'OMPI_COMM_WORLD_SIZE'),
    ],
)
def test_processes_are_the_launchers(cfg, monkeypatch, launcher, variable):
    monkeypatch.setenv(variable, '16')
    stretch_iterations(alone := Config(cfg.to_dict()))
    assert alone.train_cfg.max_iters == 800
    cfg.launcher = launcher
    stretch_iterations(cfg)
    assert cfg.train_cfg.max_iters == 50


def test_the_first_process_speaks(cfg, said, monkeypatch):
    cfg.launcher = 'pytorch'
    for rank in '0123':
        monkeypatch.setenv('RANK', rank)
        stretch_iterations(Config(cfg.to_dict()))
    assert len(said) == 1


def test_the_batch_size_of_the_schedule_changes_nothing(cfg, said, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '8')
    cfg.launcher = 'pytorch'
    before = cfg.to_dict()
    stretch_iterations(cfg)
    assert cfg.to_dict() == before
    assert said == []


def test_epochs_are_left_alone_with_their_warm_up(cfg, said):
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=1)
    cfg.param_scheduler[1].by_epoch = True
    before = cfg.to_dict()
    stretch_iterations(cfg)
    assert cfg.to_dict() == before
    assert said == []


def test_hooks_and_schedulers_that_count_epochs_stay(cfg):
    cfg.default_hooks.checkpoint = dict(interval=-1, by_epoch=False)
    cfg.param_scheduler.append(dict(type='ExponentialLR', gamma=0.9))
    stretch_iterations(cfg)
    assert cfg.default_hooks.checkpoint.interval == -1
    cfg.default_hooks.checkpoint = dict(interval=3)
    stretch_iterations(cfg)
    assert cfg.default_hooks.checkpoint.interval == 3


def test_schedulers_of_several_optimizers(cfg):
    cfg.param_scheduler = dict(
        trunk=cfg.param_scheduler, head=dict(type='PolyLR', end=100, by_epoch=False)
    )
    stretch_iterations(cfg)
    assert cfg.param_scheduler.trunk[1].milestones == [480, 720]
    assert cfg.param_scheduler.head.end == 800


def test_an_interval_does_not_vanish(cfg, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '64')
    cfg.launcher = 'pytorch'
    cfg.train_cfg.val_interval = 1
    stretch_iterations(cfg)
    assert cfg.train_cfg.val_interval == 1


def test_a_scheduler_with_a_rate_per_iteration_is_refused(cfg):
    cfg.param_scheduler[1] = dict(type='ExponentialLR', gamma=0.99, by_epoch=False)
    before = cfg.to_dict()
    with pytest.raises(
        UserError, match=r'ExponentialLR in param_scheduler of mine\.py'
    ):
        stretch_iterations(cfg)
    assert cfg.to_dict() == before


def test_a_batch_size_is_needed(cfg):
    del cfg.train_dataloader['batch_size']
    with pytest.raises(
        UserError, match=r'mine\.py has no train_dataloader\.batch_size'
    ):
        stretch_iterations(cfg)


def test_the_config_of_a_work_directory_is_not_stretched_again(cfg, tmp_path, said):
    """mmengine writes the stretched one there, and people train from it."""
    stretch_iterations(cfg)
    cfg.dump(tmp_path / 'mine.py')
    again = Config.fromfile(tmp_path / 'mine.py')
    stretch_iterations(again)
    assert again.train_cfg.max_iters == 800
    assert len(said) == 1
    again.train_dataloader.batch_size = 4
    with pytest.raises(UserError, match='stretched for 2 images an iteration'):
        stretch_iterations(again)


def test_counts_of_every_kind(cfg):
    cfg.train_cfg.dynamic_intervals = [(50, 10)]
    cfg.param_scheduler[1] = dict(
        type='mmengine.MultiStepLR',
        end=float('inf'),
        milestones=(60, 90),
        by_epoch=False,
    )
    stretch_iterations(cfg)
    assert cfg.train_cfg.dynamic_intervals == [[400, 80]]
    assert cfg.param_scheduler[1]['milestones'] == [480, 720]
    assert cfg.param_scheduler[1]['end'] == float('inf')


@pytest.mark.parametrize('base', ['16', 0, None])
def test_a_base_that_is_no_number_of_images(cfg, base):
    cfg.auto_scale_lr.base_batch_size = base
    with pytest.raises(UserError, match=r'base_batch_size of mine\.py is'):
        stretch_iterations(cfg)


@pytest.mark.parametrize('before', [100, 800])
def test_a_run_goes_on_with_its_batch_size(cfg, tmp_path, before):
    path = tmp_path / 'iter_50.pth'
    hub = dict(runtime_info=dict(max_iters=before))
    torch.save(dict(state_dict={'w': torch.ones(1)}, message_hub=hub), path)
    cfg.auto_scale_lr.enable = True
    cfg.resume, cfg.load_from = True, str(path)
    stretch_iterations(cfg)
    if before == 800:
        check_resumed_length(cfg)
        return
    with pytest.raises(UserError, match='a run of 100 iterations, and here are 800'):
        check_resumed_length(cfg)
    cfg.resume = False
    check_resumed_length(cfg)

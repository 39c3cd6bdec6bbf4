"""The line after a validation, kept results, and TensorBoard by default."""

from __future__ import annotations

import io
import json
import logging
from types import SimpleNamespace

import pytest
from mmengine.config import Config

from gn_det.version import __version__
from gn_det.workbench.runtime import progress
from gn_det.workbench.runtime.progress import ProgressHook, enable_tensorboard
from gn_det.workbench.runtime.quiet_runner import QuietRunner


class Runner:
    """What the hook asks of mmengine's: ten epochs of four iterations."""

    max_epochs, max_iters = 10, 40
    train_loop = None

    def __init__(self, work_dir, epoch: int = 0) -> None:
        self.work_dir = str(work_dir)
        self.lines: list[str] = []
        self.logger = SimpleNamespace(info=self.lines.append)
        self.val_evaluator = SimpleNamespace(metrics=[])
        self.epoch = epoch

    @property
    def iter(self) -> int:
        return 4 * self.epoch


def figures(box: float) -> dict[str, float]:
    return {'coco/bbox_mAP': box, 'coco/bbox_mAP_50': 0.8, 'coco/bbox_mAP_75': 0.3}


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(s=1000.0)
    monkeypatch.setattr(progress.time, 'monotonic', lambda: now.s)
    return now


def test_line_has_the_time_left_with_validation_and_the_best(tmp_path, clock):
    runner, hook = Runner(tmp_path), ProgressHook()
    hook.before_train(runner)
    for epoch, box in ((1, 0.25), (2, 0.2)):
        runner.epoch = epoch
        clock.s += 60
        hook.after_val_epoch(runner, figures(box))
    assert runner.lines[1:] == [
        'epoch 1/10 | box AP 25.0 (50: 80.0, 75: 30.0) | 0:01:00 passed, 0:09:00 left',
        'epoch 2/10 | box AP 20.0 (50: 80.0, 75: 30.0), best 25.0 at epoch 1 '
        '| 0:02:00 passed, 0:08:00 left',
    ]


def test_the_log_names_this_version(tmp_path):
    runner = Runner(tmp_path)
    ProgressHook().before_train(runner)
    assert runner.lines[0].startswith(f'Packages: gn_det {__version__}, ')


def test_time_left_of_a_resumed_run_counts_its_own_part(tmp_path, clock):
    runner, hook = Runner(tmp_path, epoch=8), ProgressHook()
    hook.before_train(runner)
    runner.epoch = 9
    clock.s += 60
    hook.after_val_epoch(runner, figures(0.1))
    assert runner.lines[-1].endswith('0:01:00 passed, 0:01:00 left')


def test_results_replace_those_of_the_validation_before(tmp_path):
    runner, hook = Runner(tmp_path), ProgressHook()
    for content in ([1], [2]):
        hook.before_val_epoch(runner)
        (tmp_path / 'val.partial.bbox.json').write_text(json.dumps(content))
        hook.after_val_epoch(runner, figures(0.1))
        assert json.loads((tmp_path / 'val.bbox.json').read_text()) == content
    # Killed while it wrote; then a validation that finds nothing.
    (tmp_path / 'val.partial.bbox.json').write_text('[3')
    hook.before_val_epoch(runner)
    hook.after_val_epoch(runner, figures(0.0))
    assert list(tmp_path.iterdir()) == []


def backends(cfg: Config) -> list[str]:
    return [backend['type'] for backend in cfg.visualizer.vis_backends]


@pytest.mark.parametrize('installed', [True, False])
def test_tensorboard_where_it_is_installed(monkeypatch, installed):
    found = object() if installed else None
    monkeypatch.setattr(progress.importlib.util, 'find_spec', lambda _: found)
    cfg = Config(dict(visualizer=dict(type='V', vis_backends=[dict(type='Mine')])))
    for _ in range(2):
        enable_tensorboard(cfg)
    extra = ['TensorboardVisBackend'] if installed else []
    assert backends(cfg) == ['Mine', *extra]


def test_ap_from_0_to_1_is_not_on_the_screen(monkeypatch):
    """Which `ProgressHook` shows in percent; other scores have no other place."""
    screen = io.StringIO()
    logger = logging.Logger('run', logging.INFO)
    logger.addHandler(logging.StreamHandler(screen))
    monkeypatch.setattr(QuietRunner.__base__, 'build_logger', lambda *_, **__: logger)
    QuietRunner.__new__(QuietRunner).build_logger()
    for line in (
        'Epoch(val) [4][100/100]  coco/segm_mAP: 0.5212',
        'The best checkpoint with 0.5212 coco/bbox_mAP at 4 epoch is saved',
        'epoch 4/8 | box AP 52.1',
        'Epoch(val) [4][100/100]  coco/AR@100: 0.5',
    ):
        logger.info(line)
    assert screen.getvalue().splitlines() == [
        'epoch 4/8 | box AP 52.1',
        'Epoch(val) [4][100/100]  coco/AR@100: 0.5',
    ]

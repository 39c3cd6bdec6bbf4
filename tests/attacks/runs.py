"""Small training runs in processes of their own, forked after the slow imports."""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmdet.visualization import DetLocalVisualizer
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from gn_det.workbench.inputs.config import load_config
from gn_det.workbench.runtime.distributed import close_distributed
from gn_det.workbench.runtime.runner import run_training, set_resume
from gn_det_cli.process import report_errors
from tests.running import CONFIG, REPOSITORY

# Two epochs of three steps of two images, a validation after each.
SETTINGS = {
    'train_cfg.max_epochs': 2,
    'train_cfg.val_interval': 1,
    'train_dataloader.batch_size': 2,
    'train_dataloader.dataset.indices': 6,
    'val_dataloader.dataset.indices': 2,
    'param_scheduler.1.end': 2,
    'param_scheduler.1.T_max': 2,
    'default_hooks.checkpoint.interval': 1,
    'default_hooks.checkpoint.save_best': 'coco/bbox_mAP_50',
    'default_hooks.logger.interval': 1,
    'val_evaluator.metric': 'bbox',
    'model.train_cfg.rpn_proposal.max_per_img': 20,
    'model.test_cfg.rpn.max_per_img': 20,
}
ITERATIONS = {
    'train_cfg': dict(type='IterBasedTrainLoop', max_iters=6, val_interval=3),
    'train_dataloader.sampler.type': 'InfiniteSampler',
    'param_scheduler': [dict(type='LinearLR', start_factor=0.1, by_epoch=False)],
    'default_hooks.checkpoint.by_epoch': False,
    'default_hooks.checkpoint.interval': 3,
    'log_processor.by_epoch': False,
}


@HOOKS.register_module()
class SignalAt(Hook):
    """Send this process a signal at a place of the training.

    Args:
        place: name of a hook's method.
        iteration: of the Runner there.
        number: of the signal.
        rank: of the process to send it to.
    """

    # Before all others.
    priority = 0

    def __init__(self, place: str, iteration: int, number: int, rank: int = 0) -> None:
        self.iteration, self.number, self.rank = iteration, number, rank
        setattr(self, place, self._send)

    def _send(self, runner: Any, *_: Any, **__: Any) -> None:
        if (runner.iter, runner.rank) == (self.iteration, self.rank):
            self.iteration = -1
            os.kill(os.getpid(), self.number)


@dataclass
class Run:
    """A training that has been started."""

    pid: int
    log: Path

    def wait(self) -> int:
        """Its exit code, negative if a signal ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def said(self) -> str:
        """What it has written to stdout and stderr."""
        return self.log.read_text()


def start(
    work_dir: Path,
    data_root: Path,
    resume: str | None = None,
    before: Callable[[], None] = bool,
    environment: dict[str, str] | None = None,
    **settings: Any,
) -> Run:
    """Start a training.

    Args:
        work_dir: of the run.
        data_root: of generated shapes.
        resume: as `--resume`.
        before: called in the new process.
        environment: of a process that torchrun has started.
        settings: of the config, with `__` for dots.
    """
    work_dir.parent.mkdir(parents=True, exist_ok=True)
    log = work_dir.with_suffix(f'.{os.urandom(4).hex()}.log')
    pid = os.fork()
    if pid:
        return Run(pid, log)
    code = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        # pytest's streams lead elsewhere.
        sys.stdout = os.fdopen(1, 'w', buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, 'w', buffering=1, closefd=False)
        os.setpgid(0, 0)
        # A background job of a shell ignores SIGINT, and so would its children.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(REPOSITORY)
        os.environ.update(environment or {})
        # Threads of the process that was forked are not here.
        torch.set_num_threads(1)
        signal.signal(signal.SIGUSR1, _fail)
        # One of an earlier run in the process that was forked writes elsewhere.
        DetLocalVisualizer._instance_dict.clear()
        before()
        _train(work_dir, data_root, resume, settings, bool(environment))
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _fail(*_: Any) -> None:
    raise ArithmeticError('as asked')


def _train(work_dir, data_root, resume, settings, distributed) -> None:
    options = {key.replace('__', '.'): value for key, value in settings.items()}
    # A whole loop or sampler takes the place of the other.
    whole = {key: options.pop(key) for key in list(options) if '.' not in key}

    @report_errors()
    def main() -> None:
        cfg = load_config(str(CONFIG), {'data_root': str(data_root)}, str(work_dir))
        cfg.merge_from_dict({k: v for k, v in SETTINGS.items() if '.' in k})
        for key, value in whole.items():
            cfg[key] = value
        cfg.merge_from_dict(options)
        cfg.launcher = 'pytorch' if distributed else 'none'
        set_resume(cfg, resume)
        run_training(cfg)
        close_distributed()

    main()


def start_two(work_dir: Path, data_root: Path, **settings: Any) -> list[Run]:
    """`start` for two processes of one training."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])
    common = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=port, WORLD_SIZE='2')
    return [
        start(
            work_dir,
            data_root,
            environment=dict(common, RANK=str(rank), LOCAL_RANK=str(rank)),
            **settings,
        )
        for rank in range(2)
    ]


def states(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint: weights, their averages, the optimizer's."""
    content = torch.load(path, weights_only=False)
    found = {}

    def collect(value: Any, name: str) -> None:
        if isinstance(value, torch.Tensor):
            found[name] = value
        elif isinstance(value, dict):
            for key, item in value.items():
                collect(item, f'{name}.{key}')

    for part in ('state_dict', 'ema_state_dict', 'optimizer'):
        collect(content.get(part), part)
    return found


def assert_same(path: Path, other: Path) -> None:
    """Fail unless two checkpoints hold the same bits."""
    one, two = states(path), states(other)
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []

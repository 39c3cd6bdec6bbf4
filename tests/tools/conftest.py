"""Running the tools as a user does, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CONFIG = 'configs/quickstart/mask-rcnn_r18_fpn_gn-all_shapes.py'
# Twelve images of 64 × 64 in batches of four: three iterations an epoch, two epochs.
SMALL = (
    'train_cfg.max_epochs=2',
    'train_cfg.val_interval=2',
    'train_dataloader.batch_size=4',
    'param_scheduler.1.end=2',
    'param_scheduler.1.T_max=2',
    'default_hooks.checkpoint.interval=1',
    'default_hooks.logger.interval=1',
)


def environment(**extra: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [os.environ.get('PYTHONPATH'), os.getcwd()]))
    return {**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1', **extra}


@pytest.fixture
def run_tool(
    repository: Path, monkeypatch
) -> Callable[..., subprocess.CompletedProcess]:
    """Run `python tools/NAME ARGS…` from the root of the checkout."""
    monkeypatch.chdir(repository)

    def run(name: str, *arguments: object, **extra: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, f'tools/{name}', *map(str, arguments)],
            env=environment(**extra),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    return run


@pytest.fixture(scope='session')
def small_options(shapes: Path) -> tuple[str, ...]:
    """`--cfg-options` that make the quickstart config a matter of seconds."""
    return ('--cfg-options', f'data_root={shapes}', *SMALL)


def user_error(done: subprocess.CompletedProcess) -> str:
    """The one line a mistake is answered with; anything else fails the test."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert 'Traceback' not in done.stderr + done.stdout
    lines = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1, done.stderr
    return lines[0]

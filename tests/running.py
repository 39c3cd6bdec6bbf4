"""Running commands as a user does, in a process of their own or in this one."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

from gn_det_cli.main import main

REPOSITORY = Path(__file__).resolve().parent.parent
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
    """This process's environment, with the checkout on the module path."""
    path = [os.environ.get('PYTHONPATH'), str(REPOSITORY)]
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, path)), **extra}


def run(*command: object, **extra: str) -> subprocess.CompletedProcess:
    """Run a command from the root of the checkout."""
    return subprocess.run(
        list(map(str, command)),
        cwd=REPOSITORY,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


def run_tool(
    name: str, *arguments: object, **extra: str
) -> subprocess.CompletedProcess:
    """Run `python tools/NAME ARGS…`."""
    return run(sys.executable, f'tools/{name}', *arguments, **extra)


def call(*arguments: object) -> subprocess.CompletedProcess:
    """Run `gn-det ARGS…` in this process, from the root of the checkout."""
    said, complained = io.StringIO(), io.StringIO()
    before, code = os.getcwd(), 0
    os.chdir(REPOSITORY)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
            main([*map(str, arguments)])
    except SystemExit as end:
        code = end.code
    finally:
        os.chdir(before)
    out, err = said.getvalue(), complained.getvalue()
    return subprocess.CompletedProcess(arguments, code, out, err)


def assert_success(done: subprocess.CompletedProcess) -> None:
    """Fail with the end of what the process said."""
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def user_error(done: subprocess.CompletedProcess) -> str:
    """The one line a mistake is answered with; anything else fails the test."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert 'Traceback' not in done.stderr + done.stdout
    lines = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1, done.stderr
    return lines[0]

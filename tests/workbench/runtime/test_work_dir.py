"""A work directory has one run at a time, and none loses what is there."""

from __future__ import annotations

import os
import resource
import signal
import time

import pytest

from gn_det.workbench.errors import UserError
from gn_det.workbench.runtime.work_dir import held
from tests.attacks.runs import start, start_two


def content(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_a_lock_ends_with_its_process(tmp_path):
    ready, tell = os.pipe()
    pid = os.fork()
    if not pid:
        with held(tmp_path):
            # A worker lives on when its training is killed.
            if not os.fork():
                time.sleep(30)
                os._exit(0)
            os.write(tell, b'.')
            time.sleep(30)
        os._exit(0)
    os.read(ready, 1)
    with (
        pytest.raises(UserError, match='another run writes to --work-dir'),
        held(tmp_path),
    ):
        pass
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    (tmp_path / 'epoch_1.pth.partial-4711').touch()
    (tmp_path / 'val.partial.bbox.json').touch()
    with held(tmp_path):
        assert [p.name for p in tmp_path.iterdir()] == ['run.lock']


def test_a_second_run_is_refused(shapes, tmp_path):
    with held(tmp_path):
        run = start(tmp_path, shapes)
        assert run.wait() == 2
    assert run.said().splitlines()[-1].startswith('error: another run writes to')
    assert [p.name for p in tmp_path.iterdir()] == ['run.lock']


@pytest.mark.parametrize(
    ('number', 'code'), [(signal.SIGKILL, -9), (signal.SIGUSR1, 1)]
)
def test_a_start_that_fails_leaves_a_finished_run_as_it_was(
    shapes, tmp_path, number, code
):
    names = ('epoch_2.pth', 'run.json', 'report.html', 'val.bbox.json', 'run.lock')
    for name in (*names, 'mask-rcnn_r18_fpn_gn-all_shapes.py', 'last_checkpoint'):
        (tmp_path / name).write_text(f'{name} of the finished run')
    before = content(tmp_path)
    hook = dict(
        type='SignalAt', place='before_train_epoch', iteration=0, number=int(number)
    )
    assert start(tmp_path, shapes, custom_hooks=[hook]).wait() == code
    assert content(tmp_path) == before


def test_a_full_disk_is_one_line(shapes, tmp_path):
    (tmp_path / 'epoch_1.pth').write_text('before')

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**22, 2**22))

    run = start(tmp_path, shapes, before=fill)
    assert run.wait() == 2
    said = run.said()
    assert 'Traceback' not in said
    assert said.splitlines()[-1].startswith(f'error: {tmp_path}')
    assert 'File too large; the checkpoints before are whole' in said
    assert (tmp_path / 'epoch_1.pth').read_text() == 'before'
    assert not list(tmp_path.glob('*partial*'))


def test_a_process_that_hangs_ends_the_run(shapes, tmp_path):
    hook = dict(
        type='SignalAt', place='before_train_iter', iteration=1, rank=1,
        number=int(signal.SIGSTOP),
    )  # fmt: skip
    settings = {'env_cfg.dist_cfg.timeout': 20, 'train_dataloader.batch_size': 1}
    first, hanging = start_two(tmp_path, shapes, custom_hooks=[hook], **settings)
    assert first.wait() == 1, first.said()[-2000:]
    os.kill(hanging.pid, signal.SIGKILL)
    hanging.wait()
    said = first.said()
    assert 'another process of the run has not answered for 20 s' in said
    assert 'Traceback' not in said

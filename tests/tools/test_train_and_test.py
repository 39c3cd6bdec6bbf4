"""A small model trained, killed, resumed and evaluated through the tools."""

from __future__ import annotations

import pickle
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from gn_det.evaluation.run_log import read_run_log, read_test_figures
from gn_det.runtime.checkpoints import is_whole
from tests.tools.conftest import CONFIG, environment, user_error


@pytest.fixture(scope='module')
def trained(tmp_path_factory, repository, small_options):
    """The work directory of a finished run."""
    work_dir = tmp_path_factory.mktemp('trained')
    done = subprocess.run(
        [
            sys.executable, 'tools/train.py', CONFIG, '--work-dir', str(work_dir),
            *small_options,
        ],
        cwd=repository, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return work_dir


def test_training_leaves_checkpoints_and_figures(trained):
    log = read_run_log(trained)
    assert len(log.train) == 6
    assert [r['step'] for r in log.val] == [2]
    assert is_whole(trained / 'epoch_1.pth')
    assert (trained / 'last_checkpoint').read_text() == str(trained / 'epoch_2.pth')


def test_checkpoint_evaluates_and_predictions_are_dumped(
    trained, run_tool, small_options, tmp_path
):
    dumped = tmp_path / 'predictions.pkl'
    done = run_tool(
        'test.py', CONFIG, trained / 'epoch_2.pth', '--work-dir', tmp_path,
        '--out', dumped, *small_options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 0 <= read_test_figures(tmp_path)['coco/bbox_mAP'] <= 1
    records = pickle.loads(dumped.read_bytes())
    assert len(records) == 4


def test_tta_and_painted_images(trained, run_tool, small_options, tmp_path):
    done = run_tool(
        'test.py', CONFIG, trained / 'epoch_2.pth', '--work-dir', tmp_path, '--tta',
        '--show-dir', 'painted', *small_options,
        'test_evaluator.metric=bbox', 'model.roi_head.mask_head=None',
        'model.roi_head.mask_roi_extractor=None',
    )  # fmt: skip
    # Without its mask head the model lacks what the checkpoint holds.
    assert 'left over' in user_error(done)


def test_painted_images(trained, run_tool, small_options, tmp_path):
    done = run_tool(
        'test.py', CONFIG, trained / 'epoch_2.pth', '--work-dir', tmp_path,
        '--show-dir', 'painted', *small_options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob('*/painted/*'))) == 4


def test_checkpoint_of_another_model(run_tool, small_options, tmp_path):
    path = tmp_path / 'other.pth'
    torch.save(dict(state_dict={'backbone.conv1.weight': torch.zeros(1)}), path)
    said = user_error(run_tool('test.py', CONFIG, path, *small_options))
    assert 'does not match the model' in said
    assert 'missing' in said


def wait_for(process: subprocess.Popen, pattern: str, seconds: float = 300) -> str:
    """Read the process's output until a line matches."""
    seen, deadline = [], time.monotonic() + seconds
    for line in process.stdout:
        seen.append(line)
        if re.search(pattern, line):
            return ''.join(seen)
        if time.monotonic() > deadline:
            break
    process.kill()
    raise AssertionError(f'no line like {pattern!r} in:\n{"".join(seen)[-3000:]}')


@pytest.fixture
def start_training(repository, small_options, tmp_path):
    """Start a run that would go on for long; whatever happens, it is ended."""
    started = []

    def start(*extra: str) -> subprocess.Popen:
        command = [
            sys.executable, '-u', 'tools/train.py', CONFIG, '--work-dir', tmp_path,
            *small_options, 'train_cfg.max_epochs=200', *extra,
        ]  # fmt: skip
        process = subprocess.Popen(
            command, cwd=repository, env=environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_killed_run_resumes_from_the_last_whole_checkpoint(
    start_training, run_tool, small_options, tmp_path
):
    process = start_training()
    wait_for(process, r'Epoch\(train\)\s+\[2\]\[2/3\]')
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert is_whole(tmp_path / 'epoch_1.pth')
    # What a kill in the middle of a plain write would have left behind.
    content = (tmp_path / 'epoch_1.pth').read_bytes()
    (tmp_path / 'epoch_2.pth').write_bytes(content[: len(content) // 2])
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_2.pth'))

    done = run_tool(
        'train.py', CONFIG, '--work-dir', tmp_path, '--resume', *small_options
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert 'epoch_2.pth is cut short or damaged; not resuming from it' in said
    assert 'resumed epoch: 1, iter: 3' in said
    steps = [r['iter'] for r in read_run_log(tmp_path).train]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert is_whole(tmp_path / 'epoch_2.pth')


def test_interrupt_ends_with_one_line(start_training):
    process = start_training()
    wait_for(process, r'Epoch\(train\)\s+\[1\]\[1/3\]')
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    assert process.wait() == 130
    assert rest.rstrip().endswith('interrupted')
    assert 'Traceback' not in rest


def test_resume_without_a_checkpoint_starts_anew(run_tool, small_options, tmp_path):
    done = run_tool(
        'train.py', CONFIG, '--work-dir', tmp_path, '--resume', *small_options,
        'train_cfg.max_epochs=1', 'train_cfg.val_interval=9',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert read_run_log(tmp_path).train[0]['iter'] == 1

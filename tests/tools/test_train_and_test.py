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

from gn_det.workbench.loading.integrity import is_whole
from gn_det.workbench.report.run_log import read_run_log, read_test_scores
from tests.running import (
    CONFIG,
    REPOSITORY,
    assert_success,
    environment,
    run_tool,
    user_error,
)


@pytest.fixture(scope='module')
def trained(tmp_path_factory, small_options):
    """The work directory of a finished run."""
    work_dir = tmp_path_factory.mktemp('trained')
    arguments = (CONFIG, '--work-dir', work_dir, '--verbose')
    done = run_tool('train.py', *arguments, *small_options)
    assert_success(done)
    assert 'Hooks will be executed' in done.stdout
    return work_dir


def test_training_leaves_checkpoints_and_figures(trained):
    log = read_run_log(trained)
    assert len(log.train) == 6
    assert [r['step'] for r in log.val] == [2]
    assert is_whole(trained / 'epoch_1.pth')
    assert (trained / 'last_checkpoint').read_text() == str(trained / 'epoch_2.pth')


def test_checkpoint_evaluates_and_predictions_are_dumped(
    trained, small_options, tmp_path
):
    dumped = tmp_path / 'predictions.pkl'
    done = run_tool(
        'test.py', CONFIG, trained / 'epoch_2.pth', '--work-dir', tmp_path,
        '--out', dumped, *small_options,
    )  # fmt: skip
    assert_success(done)
    assert 0 <= read_test_scores(tmp_path)['coco/bbox_mAP'] <= 1
    records = pickle.loads(dumped.read_bytes())
    assert len(records) == 4


def test_channels_last_gives_the_same_figures(trained, small_options, tmp_path):
    figures = []
    for flags in ([], ['--channels-last']):
        work_dir = tmp_path / '-'.join(['test', *flags])
        arguments = (CONFIG, trained / 'epoch_2.pth', '--work-dir', work_dir)
        assert_success(run_tool('test.py', *arguments, *flags, *small_options))
        figures.append(read_test_scores(work_dir))
    nchw, channels_last = (
        {k: v for k, v in run.items() if k.startswith('coco/')} for run in figures
    )
    assert nchw
    assert channels_last == pytest.approx(nchw, abs=1e-3)


def test_tta_merges_boxes_of_flipped_images(trained, small_options, tmp_path):
    arguments = (CONFIG, trained / 'epoch_2.pth', '--work-dir', tmp_path, '--tta')
    assert 'test_evaluator.metric=bbox' in user_error(
        run_tool('test.py', *arguments, *small_options)
    )
    options = (*small_options, 'test_evaluator.metric=bbox')
    done = run_tool('test.py', *arguments, *options)
    assert_success(done)
    figures = read_test_scores(tmp_path)
    assert 0 <= figures['coco/bbox_mAP'] <= 1
    assert 'coco/segm_mAP' not in figures


def test_painted_images(trained, small_options, tmp_path):
    done = run_tool(
        'test.py', CONFIG, trained / 'epoch_2.pth', '--work-dir', tmp_path,
        '--show-dir', 'painted', *small_options,
    )  # fmt: skip
    assert_success(done)
    assert len(list(tmp_path.glob('*/painted/*'))) == 4


def test_checkpoint_of_another_model(small_options, tmp_path):
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
def start_training(small_options, tmp_path):
    """Start a run that would go on for long; whatever happens, it is ended."""
    started = []

    def start(*extra: str) -> subprocess.Popen:
        command = [
            sys.executable, '-u', 'tools/train.py', CONFIG, '--work-dir', tmp_path,
            *small_options, 'train_cfg.max_epochs=200', *extra,
        ]  # fmt: skip
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            # A background job of a shell ignores SIGINT, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_interrupt_ends_with_one_line(start_training):
    process = start_training()
    wait_for(process, r'Epoch\(train\)\s+\[1\]\[1/3\]')
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    assert process.wait() == 130
    assert rest.rstrip().endswith('interrupted')
    assert 'Traceback' not in rest

"""A run that was stopped, however, ends with the weights of one that was not."""

from __future__ import annotations

import os
import signal

import pytest

from gn_det.workbench.report.run_log import read_run_log
from tests.attacks.runs import (
    ITERATIONS,
    assert_same,
    start,
    start_two,
)

EMA = [dict(type='EMAHook')]


def stop_at(iteration, number, place='before_train_iter', **more):
    return dict(
        type='SignalAt', place=place, iteration=iteration, number=int(number), **more
    )


def finish(*runs):
    codes = [run.wait() for run in runs]
    assert set(codes) == {0}, runs[0].said()[-3000:]
    return runs[0].said()


@pytest.fixture(scope='module')
def whole(shapes, tmp_path_factory):
    """The work directory of a run that nothing has stopped."""
    work_dir = tmp_path_factory.mktemp('whole') / 'run'
    finish(start(work_dir, shapes, custom_hooks=EMA))
    return work_dir


def test_signal_in_an_epoch(shapes, tmp_path, whole):
    # To the workers too, as a terminal and Slurm do; they look at images ahead.
    def to_all(*_):
        os.killpg(0, signal.SIGTERM)

    stopped = start(
        tmp_path / 'run', shapes, custom_hooks=[*EMA, stop_at(4, signal.SIGTERM)],
        train_dataloader__num_workers=2, train_dataloader__persistent_workers=True,
        before=lambda: setattr(os, 'kill', to_all),
    )  # fmt: skip
    assert stopped.wait() == 143, stopped.said()[-3000:]
    said = stopped.said()
    assert 'Stopped by SIGTERM after iteration 5; --resume' in said
    assert 'Traceback' not in said
    assert (tmp_path / 'run' / 'report.html').is_file()
    assert (tmp_path / 'run' / 'interrupted.pth').is_file()

    # The number of workers does not matter either.
    said = finish(start(tmp_path / 'run', shapes, 'auto', custom_hooks=EMA))
    assert 'resumed epoch: 1, iter: 5' in said
    assert_same(whole / 'epoch_2.pth', tmp_path / 'run' / 'epoch_2.pth')
    assert not (tmp_path / 'run' / 'interrupted.pth').exists()
    steps = [record['iter'] for record in read_run_log(tmp_path / 'run').train]
    assert steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ('number', 'code'), [(signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_other_signals_end_with_their_codes(shapes, tmp_path, number, code):
    hook = stop_at(0, number)
    # Under nohup the run would inherit that the signal is ignored, and keep to it.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        stopped = start(tmp_path / 'run', shapes, custom_hooks=[hook])
    finally:
        signal.signal(number, before)
    assert stopped.wait() == code, stopped.said()[-3000:]
    assert f'Stopped by {number.name} after iteration 1;' in stopped.said()
    assert (tmp_path / 'run' / 'interrupted.pth').is_file()


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
def test_a_validation_that_was_cut_off_is_made_up(shapes, tmp_path, whole, number):
    hook = stop_at(3, number, 'before_val_iter')
    run = start(tmp_path / 'run', shapes, custom_hooks=[*EMA, hook])
    code = {signal.SIGKILL: -9, signal.SIGTERM: 143}[number]
    assert run.wait() == code, run.said()[-3000:]
    said = finish(start(tmp_path / 'run', shapes, 'auto', custom_hooks=EMA))
    assert 'The validation that was cut off is made up' in said
    for name in ('epoch_1.pth', 'epoch_2.pth'):
        assert_same(whole / name, tmp_path / 'run' / name)
    scores = [read_run_log(folder).val for folder in (whole, tmp_path / 'run')]
    aps = [[(r['step'], r['coco/bbox_mAP']) for r in log] for log in scores]
    assert aps[0] == aps[1]
    assert [step for step, _ in aps[0]] == [1, 2]
    best = [sorted(p.name for p in d.glob('best*')) for d in (whole, tmp_path / 'run')]
    assert best[0] == best[1] != []
    # And once: nothing is left to do.
    assert 'made up' not in finish(start(tmp_path / 'run', shapes, 'auto'))


def test_training_counted_in_iterations(shapes, tmp_path):
    finish(start(tmp_path / 'whole', shapes, **ITERATIONS))
    hook = stop_at(1, signal.SIGTERM)
    run = start(tmp_path / 'run', shapes, **ITERATIONS, custom_hooks=[hook])
    assert run.wait() == 143, run.said()[-3000:]
    said = finish(start(tmp_path / 'run', shapes, 'auto', **ITERATIONS))
    assert 'resumed epoch: 0, iter: 2' in said
    assert_same(tmp_path / 'whole' / 'iter_6.pth', tmp_path / 'run' / 'iter_6.pth')


def test_two_processes_stop_at_one_iteration(shapes, tmp_path):
    finish(*start_two(tmp_path / 'whole', shapes, train_dataloader__batch_size=1))
    hook = stop_at(1, signal.SIGTERM, rank=1)
    runs = start_two(
        tmp_path / 'run', shapes, train_dataloader__batch_size=1, custom_hooks=[hook]
    )
    assert [run.wait() for run in runs] == [143, 143], runs[0].said()[-3000:]
    said = finish(
        *start_two(
            tmp_path / 'run', shapes, resume='auto', train_dataloader__batch_size=1
        )
    )
    assert 'resumed epoch: 0, iter: 2' in said
    assert_same(tmp_path / 'whole' / 'epoch_2.pth', tmp_path / 'run' / 'epoch_2.pth')

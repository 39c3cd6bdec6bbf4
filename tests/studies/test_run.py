"""Every claim at a tiny size, through a kill and the run that goes on after it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gn_det.workbench.errors import UserError
from studies.claims import CLAIMS, Case
from studies.plan import ClassifierSize, Job, plan
from studies.records import is_done, read_record, read_records, write_record
from studies.run import run_all
from tests.running import REPOSITORY, assert_success, environment, run, user_error

COMMAND = (sys.executable, 'studies/run.py', '--seeds', '0', '--jobs', '1', '--quick')
JOBS = plan(CLAIMS, [0], quick=True)
FIGURES = {'classifier': {'error'}, 'detector': {'box_ap', 'mask_ap'}}


@pytest.fixture(scope='module')
def work_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of everything that was killed after its first record and run again."""
    work_dir = tmp_path_factory.mktemp('studies')
    process = subprocess.Popen(
        [*COMMAND, '--work-dir', work_dir], cwd=REPOSITORY, env=environment()
    )
    _wait_for(lambda: any(work_dir.glob('results/*.json')))
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 130
    finished = {path: path.stat() for path in work_dir.glob('results/*.json')}
    assert 0 < len(finished) < len(JOBS)
    assert not any(work_dir.glob('results/*.partial*'))
    assert_success(run(*COMMAND, '--work-dir', work_dir))
    for path, before in finished.items():
        assert path.stat().st_mtime_ns == before.st_mtime_ns, f'{path} made twice'
    return work_dir


def _wait_for(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'nothing happened'
        time.sleep(0.05)


def test_every_run_has_its_record(work_dir: Path):
    assert all(is_done(work_dir / 'results', job) for job in JOBS)
    records = read_records(work_dir / 'results')
    assert len(records) == len(JOBS) == 24
    for record in records:
        assert set(record['figures']) == FIGURES[record['case']['task']]
        assert all(0 <= value <= 100 for value in record['figures'].values())
        assert record['seconds'] > 0
        for part in ('machine', 'commit', 'date', 'packages'):
            assert record[part]
        assert 'torch' in record['packages']


def test_nothing_is_left_to_do(work_dir: Path):
    done = run(*COMMAND, '--work-dir', work_dir)
    assert_success(done)
    assert '24 of 24 runs are done' in done.stderr


def test_figures_of_own_runs_lie_beside_them(work_dir: Path):
    assert_success(run(sys.executable, 'studies/figures.py', work_dir / 'results'))
    page = (work_dir / 'results' / 'tables.md').read_text()
    assert page.count('\n| --- |') == len(CLAIMS)
    assert 'not measured' not in page
    assert {path.stem for path in work_dir.glob('results/*.png')} == set(CLAIMS)


def test_other_settings_are_not_done(work_dir: Path):
    full = plan(['a'], [0])
    assert not any(is_done(work_dir / 'results', job) for job in full)


def test_claims_share_their_runs():
    assert len(plan(['c', 'd'], [0])) == 5
    assert len(plan(['a', 'b'], [0, 1])) == 2 * (10 + 9)
    names = [job.name for job in plan(CLAIMS, [0, 1, 2])]
    assert len(set(names)) == len(names)


def test_a_failed_run_does_not_stop_the_others(tmp_path: Path):
    size = ClassifierSize(num_train=8, num_val=4, widths=(8,), epochs=3, drops=(2,))
    good = Job(Case('classifier', 'gn-g4', 4), 0, size)
    bad = Job(Case('classifier', 'gn-g3', 4), 0, size)
    failed = run_all([bad, good], 1, tmp_path)
    assert len(failed) == 1
    assert bad.name in failed[0]
    assert 'num_groups=3' in failed[0]
    assert is_done(tmp_path / 'results', good)
    assert not is_done(tmp_path / 'results', bad)


def test_a_record_cut_short_is_named(tmp_path: Path):
    job = JOBS[0]
    write_record(tmp_path, job, {'error': 12.3456}, 1.0, 'here')
    (path,) = tmp_path.iterdir()
    assert read_record(path)['figures'] == {'error': 12.346}
    path.write_text(path.read_text()[:40])
    with pytest.raises(UserError, match=f'{path.name} is not JSON'):
        is_done(tmp_path, job)
    path.write_text('{"case": 1}')
    with pytest.raises(UserError, match='has no seed'):
        is_done(tmp_path, job)


@pytest.mark.skipif(
    'CUDA_VISIBLE_DEVICES' not in os.environ and Path('/dev/nvidia0').exists(),
    reason='there is a GPU',
)
def test_a_gpu_that_is_not_there_is_named(tmp_path: Path):
    line = user_error(run(*COMMAND, '--work-dir', tmp_path, '--device', 'cuda'))
    assert 'no GPU was found' in line

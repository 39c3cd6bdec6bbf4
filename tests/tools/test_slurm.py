"""`tools/slurm_train.sh` with an `srun` and a `scontrol` that note their calls."""

from __future__ import annotations

import os

import pytest

from tests.running import run

FAKE = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >> "$CALLS"
# The first training is stopped by Slurm.
if [ "$(basename "$0")" = srun ] && mkdir "$CALLS.stopped" 2> /dev/null; then
    exit 143
fi
"""


@pytest.fixture
def calls(tmp_path):
    for name in ('srun', 'scontrol'):
        (tmp_path / name).write_text(FAKE)
        (tmp_path / name).chmod(0o755)
    path = f'{tmp_path}:{os.environ["PATH"]}'

    def call(*flags, **extra):
        script = 'tools/slurm_train.sh'
        words = ('dev', 'gn', 'c.py', 'work', *flags)
        done = run(script, *words, PATH=path, CALLS=str(tmp_path / 'calls'), **extra)
        return done.returncode, (tmp_path / 'calls').read_text().splitlines()

    return call


def test_slurm_gives_notice(calls):
    code, said = calls('--amp')
    assert code == 143
    assert len(said) == 1
    assert '--signal=TERM@300' in said[0]
    assert said[0].endswith('train.py c.py --work-dir=work --amp --launcher=slurm')


def test_a_stopped_training_goes_on(calls):
    code, said = calls(REQUEUE='1', SLURM_JOB_ID='')
    assert code == 0
    assert [line.split()[0] for line in said] == ['srun', 'srun']
    assert said[1].endswith('--work-dir=work --resume --launcher=slurm')


def test_a_batch_job_is_queued_again(calls):
    code, said = calls('--resume', 'a.pth', REQUEUE='1', SLURM_JOB_ID='7')
    assert code == 0
    assert said[0].endswith('--resume a.pth --launcher=slurm')
    assert said[1] == 'scontrol requeue 7'

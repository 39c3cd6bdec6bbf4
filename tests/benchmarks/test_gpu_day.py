"""The measuring day with a clock and commands that are played."""

from __future__ import annotations

import pytest

from benchmarks import readme_table
from benchmarks.arguments import Budget
from benchmarks.gpu_day import STEPS, Step, main, run_day
from benchmarks.results import DETECTOR_COLUMNS, Environment, earlier_rows, write_rows

GATE = Step('tests', ('tests',), budgeted=False, gate=True)
OPS = Step('op', ('op',))
MISSING = Step('missing', ('missing',), needs=('no_such_module',))


class Day:
    """Commands that take so many seconds each and end with these codes."""

    def __init__(self, seconds, codes=()):
        self.now = 0.0
        self.seconds = seconds
        self.codes = dict(codes)
        self.called = []

    def call(self, command, left):
        name = command[1]
        self.called.append((name, command[2:], left))
        self.now += min(self.seconds, left)
        return self.codes.get(name, 0)

    def run(self, steps, seconds):
        return run_day(steps, seconds, 'out', call=self.call, clock=lambda: self.now)


def test_steps_get_what_is_left_of_the_time():
    day = Day(100)
    assert day.run([GATE, MISSING, OPS, OPS], 540) == 0
    assert day.called == [
        ('tests', [], 520),
        ('op', ['--budget', '420', '--out', 'out'], 420),
        ('op', ['--budget', '320', '--out', 'out'], 320),
    ]


def test_a_red_gate_times_nothing():
    day = Day(1, {'tests': 1})
    assert day.run([GATE, OPS], 540) == 1
    assert [name for name, *_ in day.called] == ['tests']


@pytest.mark.parametrize(
    ('seconds', 'codes', 'expected', 'calls'),
    [(150, {}, 3, 2), (540, {'op': 1}, 1, 3), (540, {'op': 3}, 3, 2)],
    ids=['no time left', 'one failed', 'one ran out of time'],
)
def test_the_exit_code_tells_how_far_it_came(seconds, codes, expected, calls):
    day = Day(80, codes)
    assert day.run([GATE, OPS, OPS], seconds) == expected
    assert len(day.called) == calls


def test_every_command_of_the_day_exists(repository):
    for step in STEPS:
        if step.command[0] != '-m':
            assert (repository / step.command[0]).is_file()
    assert STEPS[0].gate


def test_without_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    assert main([]) == 2
    assert 'no CUDA device' in capsys.readouterr().err


def test_a_budget_counts_the_longest_row(monkeypatch):
    now = [0.0]
    monkeypatch.setattr('time.monotonic', lambda: now[0])
    budget = Budget(10)
    began = []
    for took in (3, 4, 1):
        began.append(budget.begin())
        now[0] += took
        budget.end()
    assert began == [True, True, False]


def test_rows_of_the_same_source_and_machine_are_kept(tmp_path):
    here = Environment('H100', '2.11', '3.6', '1234567', '2026-11-25', '3.12')
    row = dict.fromkeys(DETECTOR_COLUMNS, '')
    mine = dict(row, gpu='H100', torch='2.11', triton='3.6', commit='1234567', batch=2)
    path = tmp_path / 'rows.csv'
    assert earlier_rows(path, here) == []
    write_rows(path, DETECTOR_COLUMNS, [mine, dict(mine, commit='other')])
    (kept,) = earlier_rows(path, here)
    assert (kept['batch'], kept['commit']) == (2, '1234567')


def test_the_readme_has_what_the_files_say():
    assert readme_table.main(['--check']) == 0


def test_times_come_from_the_newest_run_on_a_gpu(tmp_path):
    row = dict.fromkeys(DETECTOR_COLUMNS, '')
    row |= dict(mode='train', batch=2, status='ok', ms_p50=123.456, date='2026-12-01')
    row |= dict(variant='fused_gn', gpu='H100', torch='2.11.0', triton='3.6.0')
    name = 'detector_r50_bf16_nhwc_{}_pt211_tr36.csv'
    write_rows(tmp_path / name.format('h100'), DETECTOR_COLUMNS, [row])
    older = dict(row, date='2026-11-30', ms_p50=1.0)
    write_rows(tmp_path / name.format('h200'), DETECTOR_COLUMNS, [older])
    cpu = dict(row, date='2026-12-02', gpu='cpu')
    write_rows(tmp_path / name.format('cpu'), DETECTOR_COLUMNS, [cpu])
    memory = readme_table.RESULTS / 'detector-memory_pt215.csv'
    (tmp_path / memory.name).write_bytes(memory.read_bytes())
    lines = readme_table.table(tmp_path)
    assert '| train step, bf16, ms | not yet measured | 123.5 | not yet' in lines
    assert '*measured*, H100, torch 2.11.0, Triton 3.6.0, 2026-12-01' in lines

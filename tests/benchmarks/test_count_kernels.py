"""Counts and modelled times: the script, its model, and what the page says of them."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from benchmarks import counts_page, tune
from benchmarks.count_totals import totals
from benchmarks.hardware import H100
from benchmarks.launch_counts import LaunchCounts, TimeLine, Traffic, pipe, resident
from benchmarks.launch_model import dram_bytes, found_again, launch_time
from benchmarks.plot import draw
from benchmarks.results import COUNTS, RESULTS, read_rows
from benchmarks.separate_kernels import folded_bn, frozen_bn, no_norm
from gn_det.ops.limits import LIMITS

MB = 1e6


@pytest.fixture(scope='module')
def small(repository, tmp_path_factory):
    """The rows of a run on the two smallest maps, and the file."""
    out = tmp_path_factory.mktemp('counts')
    environment = {k: v for k, v in os.environ.items() if k != 'TRITON_INTERPRET'}
    command = [sys.executable, 'benchmarks/count_kernels.py', '--maps', '2', '--out']
    command += [out, '--dtype', 'bf16', '--layout', 'nhwc', '--impl', 'gn_det']
    command += ['frozen_bn']
    subprocess.run(command, cwd=repository, env=environment, check=True, timeout=300)
    (path,) = out.iterdir()
    return read_rows(path), path


def test_the_script_counts(small):
    rows, _ = small
    assert len(rows) == 8
    for row in rows:
        assert 0 < float(row['us']) < 100
        if row['impl'] == 'gn_det':
            assert float(row['us']) > float(row['us_copy'])
            # All elements are loaded, computed on and stored.
            assert 2 < float(row['instructions_per_element']) < 200
            assert 16 <= int(row['registers']) <= 255
            assert int(row['spilled']) == 0
            assert 0 < float(row['occupancy']) <= 1
            assert float(row['units']) >= 2 + (row['dir'] == 'bwd')
            assert float(row['dram_units']) <= float(row['units'])
            assert float(row['sectors_over_ideal']) >= 1
            assert len(row['kernels'].split('; ')) == int(row['launches'])


def test_a_part_of_the_maps_has_no_total(small):
    rows, path = small
    assert totals(rows, 'r50') == {}
    assert path.stem.endswith('_partial')


def test_the_page_has_the_totals_of_the_file():
    (path,) = RESULTS.glob(f'{COUNTS}_*.csv')
    rows = read_rows(path)
    text = counts_page.PAGE.read_text(encoding='utf-8')
    assert counts_page.page(text, rows) == text
    # A time that changes changes the page.
    rows = [row | {'us': str(2 * float(row['us']))} for row in rows]
    assert counts_page.page(text, rows) != text


def test_the_figure_is_drawn(tmp_path):
    (path,) = RESULTS.glob(f'{COUNTS}_*.csv')
    (figure,) = draw(path, tmp_path)
    assert figure.name == f'{path.stem}.png'


@pytest.mark.parametrize(
    ('sizes', 'share'),
    [
        # The first use left it all, and both fit.
        ((10, 0, 20), 1.0),
        # The cache takes as much again before the end: its first third is there.
        ((20, 0, 50), 1 / 3),
        # Twice the cache, in the same order: each part is gone when it is wanted.
        ((60, 0, 120), 0.0),
        # Nothing more is kept now, so the end of the first use is still there.
        ((60, 0, 0), 0.5),
        ((20, 15, 20), 0.0),
    ],
)
def test_what_a_cache_still_has(sizes, share):
    before, between, now = (MB * size for size in sizes)
    assert found_again(before, between, now, 30 * MB) == pytest.approx(share)


def launch(**changes) -> LaunchCounts:
    whole = Traffic(60 * MB, 60 * MB, 60 * MB, 60 * MB, passes=1, streamed=False)
    counts = LaunchCounts(
        kernel='kernel',
        programs=264,
        warps=8,
        registers=64,
        spilled=0,
        per_sm=2,
        instructions=1.0,
        pipes={},
        maps={('x', 'ld'): whole},
        small=0.0,
        line=TimeLine(1e-6, 2e-6, 3e-6),
    )
    return replace(counts, **changes)


def test_streamed_stores_leave_the_input_in_the_cache():
    x, y = (60 * MB for _ in range(2))
    second = {
        kind: Traffic(size, size, size, size, passes=1, streamed=True)
        for kind, size in ((('x', 'ld'), x), (('y', 'st'), y))
    }
    first = launch()
    _, streamed = dram_bytes([first, launch(maps=second)])
    second = {kind: replace(t, streamed=False) for kind, t in second.items()}
    _, kept = dram_bytes([first, launch(maps=second)])
    assert (streamed, kept) == (pytest.approx(90 * MB), pytest.approx(120 * MB))


def test_a_launch_takes_its_slowest_bound_and_its_ends():
    bound = launch_time(launch(), 60 * MB)
    assert bound.total == pytest.approx(4e-6 + 60 * MB / H100.dram)
    assert bound.bound == 'dram'
    idle = launch_time(launch(), 0.0)
    assert idle.total == pytest.approx(4e-6 + 60 * MB / H100.l2)
    # A ninth program more than fits is a wave of its own.
    more = launch_time(launch(programs=265, maps={}), 0.0)
    assert more.total == pytest.approx(4e-6 + 6e-6 + 2e-6)
    busy = launch_time(launch(instructions=H100.sms * 4 * H100.clock), 0.0)
    assert busy.issue == pytest.approx(1.0)


def test_occupancy():
    assert resident(128, 256, 0, H100) == 2
    assert resident(32, 256, 0, H100) == 8
    assert resident(32, 128, 100_000, H100) == 2


@pytest.mark.parametrize(
    ('opcode', 'expected'),
    [
        ('ld.global.v4.b32', 'lsu'),
        ('ld.param.u64', None),
        ('fma.rn.f32', 'float'),
        ('cvt.rn.bf16x2.f32', 'convert'),
        ('div.full.f32', 'special'),
        ('shfl.sync.bfly.b32', 'shuffle'),
        ('add.s32', 'integer'),
        ('bar.sync', None),
    ],
)
def test_pipes(opcode, expected):
    assert pipe(opcode) == expected


@pytest.mark.parametrize(
    ('layer', 'kind', 'direction', 'units'),
    [
        (frozen_bn, 'relu', 'fwd', 4),
        (frozen_bn, 'residual_relu', 'fwd', 7),
        (frozen_bn, 'relu', 'bwd', 7),
        (frozen_bn, 'plain', 'bwd', 4),
        (folded_bn, 'residual_relu', 'fwd', 5),
        (folded_bn, 'plain', 'fwd', 0),
        (no_norm, 'relu', 'bwd', 3),
    ],
)
def test_separate_kernels(layer, kind, direction, units):
    launches = layer(kind, MB, direction)
    moved = sum(t.distinct for launch in launches for t in launch.maps.values())
    assert moved == units * MB


def test_tuned_limits_are_written_with_their_basis():
    limits = replace(LIMITS, merge=LIMITS.merge * 2)
    text = tune.written(tune.TABLE.read_text(), limits, 'measured: a test')
    scope: dict = {'__name__': 'tuned'}
    exec(text, scope)
    assert scope['Limits']() == scope['Limits'](**vars(limits))
    assert scope['BASIS'] == 'measured: a test'
    with pytest.raises(SystemExit, match='error:'):
        tune.written(text.replace('BASIS', 'basis'), limits, 'x')
    assert set(tune.CANDIDATES) <= set(vars(LIMITS))


def test_a_gain_that_slows_a_map_is_not_taken():
    class Case:
        count_r50 = 1

    small_map, large_map = Case(), Case()
    old = {(small_map, 'fwd'): 1.0, (large_map, 'fwd'): 9.0}
    new = {(small_map, 'fwd'): 1.1, (large_map, 'fwd'): 7.0}
    assert not tune.better(new, old, gain=0.01, loss=0.02)
    assert tune.better(new | {(small_map, 'fwd'): 1.0}, old, gain=0.01, loss=0.02)
    assert not tune.better(old, old, gain=0.01, loss=0.02)

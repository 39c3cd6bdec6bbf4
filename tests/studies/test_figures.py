"""Tables and figures follow from the records; the committed page is up to date."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from gn_det.workbench.errors import UserError
from studies import figures
from studies.claims import CLAIMS
from studies.drawing import draw
from studies.plan import plan
from studies.records import read_records
from studies.tables import caption, spread, table, values
from tests.running import run, user_error


def given(claim: str, seeds: tuple[int, ...] = (0, 1, 2)) -> list[dict]:
    """Records whose figures grow with the batch and the seed."""
    facts = dict(machine='here', packages='torch 1', commit='c0ffee', date='today')
    names = ('error', 'box_ap', 'mask_ap')
    return [
        {
            **job.settings,
            'figures': dict.fromkeys(names, job.case.batch + 2 * job.seed + 0.25),
            'seconds': 1.0,
            **facts,
        }
        for job in plan([claim], seeds)
    ]


def test_table_has_mean_spread_and_paper():
    lines = table(CLAIMS['a'], given('a')).splitlines()
    assert lines[0] == '| images per batch | BN | paper | GN | paper |'
    assert lines[2] == '| 32 | 34.2 ± 2.0 | 23.6 | 34.2 ± 2.0 | 24.1 |'
    assert lines[-1] == '| 2 | 4.2 ± 2.0 | 34.7 | 4.2 ± 2.0 | 24.1 |'
    assert len(lines) == 7


def test_what_was_not_measured_says_so():
    records = [r for r in given('c') if r['case']['norm'] != 'bn']
    assert table(CLAIMS['c'], records).splitlines()[3] == (
        '| BN | not measured | 34.5 | not measured | – |'
    )


@pytest.mark.parametrize(
    ('found', 'text'),
    [
        ([], 'not measured'),
        ([3.14], '3.1'),
        ([1, 2, 3], '2.0 ± 1.0'),
        ([1.0, math.nan, 3.0], '2.0 ± 1.4 (1 of 3 not a number)'),
        ([math.inf, math.nan], '2 of 2 not a number'),
    ],
)
def test_spread(found: list[float], text: str):
    assert spread(found) == text


def test_caption_names_seeds_machine_commit_and_date():
    records = given('b')
    records[0] |= dict(commit='other')
    text = caption(CLAIMS['b'], records)
    assert 'the seeds 0, 1 and 2; here; torch 1; c0ffee and other; today' in text
    assert 'table 3' in text


def test_caption_says_where_seeds_are_missing():
    records = [r for r in given('a') if r['seed'] < 2 or r['case']['norm'] == 'bn']
    text = caption(CLAIMS['a'], records)
    assert 'the seeds 0, 1 and 2, of which not every cell has all; here' in text
    # A case that was not measured at all says so itself.
    records = [r for r in given('a') if r['case']['norm'] == 'bn']
    assert 'not every cell' not in caption(CLAIMS['a'], records)


@pytest.mark.parametrize('key', ['a', 'c'])
def test_a_run_that_diverged_is_not_drawn(key: str):
    records = given(key)
    for record in records[:4]:
        record['figures'] = dict.fromkeys(record['figures'], math.nan)
    here, _ = draw(CLAIMS[key], records).axes
    assert all(map(math.isfinite, here.get_ylim()))
    points = [y for line in here.lines for y in line.get_ydata()]
    assert points
    assert all(map(math.isfinite, points))


def test_runs_of_different_size_are_not_mixed():
    records = given('a')
    records[-1]['size']['epochs'] += 1
    with pytest.raises(UserError, match='claim a are of runs of different size'):
        table(CLAIMS['a'], records)


def test_values_come_in_the_order_of_the_seeds():
    cell = CLAIMS['d'].rows[1][1][0]
    assert values(cell, given('d')[::-1]) == [2.25, 4.25, 6.25]


@pytest.mark.parametrize('key', ['a', 'c'])
def test_figure_shows_every_run_and_the_paper(key: str):
    claim = CLAIMS[key]
    here, paper = draw(claim, given(key)).axes
    dots = sum(len(line.get_xdata()) for line in here.lines if line.get_marker() == 'o')
    assert dots == 3 * sum(len(cells) for _, cells in claim.rows)
    assert claim.measured.split()[0] in here.get_title()
    known = [c.paper for _, cells in claim.rows for c in cells if c.paper is not None]
    heights = [bar.get_height() for bar in paper.patches]
    points = [y for line in paper.lines for y in line.get_ydata()]
    assert sorted(set(heights + points)) == sorted(set(known))


def test_the_page_has_the_tables_of_the_committed_records():
    page = figures.PAGE.read_text()
    records = read_records(figures.RESULTS)
    assert records
    for key, claim in CLAIMS.items():
        assert f'## {key}. {claim.title}\n\n<!-- table {key} -->' in page
    assert page == figures.filled(page, figures.blocks(records)), (
        'run python studies/figures.py'
    )


def test_committed_records_are_of_the_full_size():
    sizes = {job.name: asdict(job.size) for job in plan(CLAIMS, range(10))}
    for path in figures.RESULTS.iterdir():
        assert path.stem in sizes
    for record in read_records(figures.RESULTS):
        full = next(j for j in plan(CLAIMS, [0]) if asdict(j.case) == record['case'])
        assert record['size'] == full.settings['size']


def test_a_folder_without_records_is_named(tmp_path: Path):
    line = user_error(run(sys.executable, 'studies/figures.py', tmp_path))
    assert f'no records in {tmp_path}' in line

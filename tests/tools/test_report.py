"""A small training run as its user follows it, and the report it ends with."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from tests.running import CONFIG, assert_success, call, run_tool
from tests.workbench.report.pages import Page


@pytest.fixture(scope='module')
def followed(tmp_path_factory, small_options):
    """Two epochs, each evaluated: what was said, and the work directory."""
    work_dir = tmp_path_factory.mktemp('followed') / 'run'
    done = run_tool(
        'train.py', CONFIG, '--work-dir', work_dir, *small_options,
        'train_cfg.val_interval=1', 'model.test_cfg.rcnn.score_thr=0.0',
    )  # fmt: skip
    assert_success(done)
    # In this order all of the second stream counts as said before the first step.
    return done.stderr + done.stdout, work_dir


def test_the_log_has_what_the_screen_is_spared(followed):
    said, work_dir = followed
    before, found, _ = said.partition('Epoch(train)')
    assert found
    assert len(before.splitlines()) < 40
    assert 'OneDL' not in before
    (log,) = work_dir.glob('*/*.log')
    logged = log.read_text()
    for kind in ('System environment:', 'Config:', 'Hooks will be executed'):
        assert kind in logged
        assert kind not in said


def test_a_line_after_each_validation(followed):
    said, _ = followed
    assert re.search(r'Epoch\(train\)\s+\[1\]\[1/3\].* eta: ', said)
    number = r'\d+\.\d'
    figures = rf'AP {number} \(50: {number}, 75: {number}\)'
    lines = re.findall(
        rf'epoch (\d)/2 \| box {figures}.* \| mask {figures}.* '
        r'\| (\S+) passed, (\S+) left',
        said,
    )
    assert [line[0] for line in lines] == ['1', '2']
    assert lines[0][2] != '0:00:00'
    assert lines[1][2] == '0:00:00'


def test_report_and_results_of_the_last_validation(followed):
    said, work_dir = followed
    assert f'Report: {work_dir}/report.html' in said
    page = Page(work_dir / 'report.html')
    assert not any(page.missing.values()), page.missing
    assert 'mmdet' in page.sections['Environment']
    assert sorted(path.name for path in work_dir.glob('val.*')) == [
        'val.bbox.json',
        'val.scores.json',
        'val.segm.json',
    ]
    assert json.loads((work_dir / 'val.segm.json').read_text())[0]['segmentation']


def test_tensorboard_where_it_is_installed(followed):
    pytest.importorskip('tensorboard')
    assert list(followed[1].rglob('events.out.tfevents.*'))


def test_the_tool_reports_and_compares(followed, tmp_path):
    _, work_dir = followed
    (work_dir / 'report.html').unlink()
    page, other = tmp_path / 'both.html', tmp_path / 'other'
    shutil.copytree(work_dir, other)
    done = call('report', work_dir, other, '--out', page)
    assert_success(done)
    assert done.stdout.split()[-1] == str(page)
    assert Page(work_dir / 'report.html').images['Training curves']
    assert Page(page).images['Training curves']

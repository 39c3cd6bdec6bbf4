"""Reading what mmengine logged, resumed and killed runs included."""

from __future__ import annotations

import json
import math
import os

import pytest

from gn_det.workbench.report.run_log import read_run_log, read_test_scores


def write_part(work_dir, name, records, tail=''):
    folder = work_dir / name / 'vis_data'
    folder.mkdir(parents=True)
    lines = [json.dumps(record) for record in records]
    (folder / 'scalars.json').write_text('\n'.join([*lines, tail]))


def iteration(number, loss):
    return dict(loss=loss, iter=number, step=number, lr=0.1)


def epoch(number, ap):
    return {'coco/bbox_mAP': ap, 'step': number}


def test_one_run(tmp_path):
    write_part(tmp_path, '1', [iteration(10, 2.0), epoch(1, 0.1), iteration(20, 1.0)])
    log = read_run_log(tmp_path)
    assert [r['loss'] for r in log.train] == [2.0, 1.0]
    assert [r['coco/bbox_mAP'] for r in log.val] == [0.1]


def test_resumed_part_outranks_what_it_repeats(tmp_path):
    write_part(tmp_path, '1', [iteration(10, 4.0), epoch(1, 0.1), iteration(20, 3.0)])
    write_part(tmp_path, '2', [iteration(20, 2.5), iteration(30, 2.0), epoch(2, 0.2)])
    log = read_run_log(tmp_path)
    assert [r['loss'] for r in log.train] == [4.0, 2.5, 2.0]
    assert [r['coco/bbox_mAP'] for r in log.val] == [0.1, 0.2]


@pytest.mark.parametrize('resumed', [None, False, True])
def test_new_start_replaces_the_run_before(tmp_path, resumed):
    """By its settings; without them by its first iteration."""
    write_part(tmp_path, '1', [iteration(10, 4.0), iteration(20, 3.0), epoch(1, 0.9)])
    write_part(tmp_path, '2', [iteration(5 if resumed is None else 15, 2.0)])
    if resumed is not None:
        (tmp_path / '2/vis_data/config.py').write_text(f'resume = {resumed}')
    log = read_run_log(tmp_path)
    if resumed:
        assert [r['loss'] for r in log.train] == [4.0, 2.0, 3.0]
        assert [path.name for path in log.starts] == ['1', '2']
    else:
        assert [r['loss'] for r in log.train] == [2.0]
        assert log.val == []
        assert [path.name for path in log.starts] == ['2']


HOSTILE = [
    b'{"loss": NaN, "iter": NaN, "step": NaN, "coco/bbox_mAP": NaN}',
    b'{"loss": 1, "iter": Infinity}',
    b'{"loss": 1, "iter": -5}',
    b'{"loss": 1, "iter": 1.5}',
    b'{"loss": 1, "iter": true}',
    b'{"coco/bbox_mAP": 1, "step": 1' + b'0' * 400 + b'}',
    b'{"loss": 1' + b'0' * 9000 + b', "iter": 3}',
    b'{"loss": ' + b'[' * 100_000,
    b'[' * 3_000_000,
    b'\xff\xfe\x00',
    b'{"a": "' + b'x' * 3_000_000 + b'"}',
    b'',
]


@pytest.mark.parametrize('line', HOSTILE, ids=lambda line: ascii(line[:24]))
def test_hostile_lines_cost_themselves_only(tmp_path, line):
    write_part(tmp_path, '1', [iteration(10, 4.0), epoch(1, 0.1)])
    file = tmp_path / '1/vis_data/scalars.json'
    good = file.read_bytes()
    file.write_bytes(line + b'\n' + good + b'\n' + line)
    log = read_run_log(tmp_path)
    assert log.train == [iteration(10, 4.0)]
    assert log.val == [epoch(1, 0.1)]


def test_a_loss_that_is_no_number_keeps_its_iteration(tmp_path):
    write_part(tmp_path, '1', [iteration(10, 4.0), iteration(20, math.nan)])
    log = read_run_log(tmp_path)
    assert [r['iter'] for r in log.train] == [10, 20]
    assert 'loss' not in log.train[1]


def test_files_that_are_none(tmp_path):
    write_part(tmp_path, '1', [iteration(10, 4.0)])
    for number, make in enumerate((os.mkfifo, os.mkdir), 2):
        folder = tmp_path / f'{number}/vis_data'
        folder.mkdir(parents=True)
        make(folder / 'scalars.json')
    assert len(read_run_log(tmp_path).train) == 1


def test_line_cut_short_by_a_kill_is_left_out(tmp_path):
    write_part(tmp_path, '1', [iteration(10, 4.0)], tail='{"loss": 3.')
    assert len(read_run_log(tmp_path).train) == 1


def test_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match='no training log'):
        read_run_log(tmp_path)
    with pytest.raises(FileNotFoundError, match='no test results'):
        read_test_scores(tmp_path)


def test_newest_test_counts(tmp_path):
    for stamp, ap in (('20260101_000000', 0.1), ('20260102_000000', 0.2)):
        folder = tmp_path / stamp
        folder.mkdir()
        (folder / f'{stamp}.json').write_text(json.dumps(epoch(1, ap)))
    assert read_test_scores(tmp_path)['coco/bbox_mAP'] == 0.2

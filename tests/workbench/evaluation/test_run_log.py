"""Reading what mmengine logged, resumed and killed runs included."""

from __future__ import annotations

import json

import pytest

from gn_det.workbench.evaluation.run_log import read_run_log, read_test_figures


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


def test_new_start_replaces_the_run_before(tmp_path):
    write_part(tmp_path, '1', [iteration(10, 4.0), iteration(20, 3.0), epoch(1, 0.9)])
    write_part(tmp_path, '2', [iteration(10, 2.0)])
    log = read_run_log(tmp_path)
    assert [r['loss'] for r in log.train] == [2.0]
    assert log.val == []


def test_line_cut_short_by_a_kill_is_left_out(tmp_path):
    write_part(tmp_path, '1', [iteration(10, 4.0)], tail='{"loss": 3.')
    assert len(read_run_log(tmp_path).train) == 1


def test_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match='no training log'):
        read_run_log(tmp_path)
    with pytest.raises(FileNotFoundError, match='no test results'):
        read_test_figures(tmp_path)


def test_newest_test_counts(tmp_path):
    for stamp, ap in (('20260101_000000', 0.1), ('20260102_000000', 0.2)):
        folder = tmp_path / stamp
        folder.mkdir()
        (folder / f'{stamp}.json').write_text(json.dumps(epoch(1, ap)))
    assert read_test_figures(tmp_path)['coco/bbox_mAP'] == 0.2

"""What the flags of `tools/test.py` do to the evaluators of a config."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from gn_det.errors import UserError
from gn_det.evaluation.settings import (
    evaluated_file,
    only_formats,
    remove_results,
    set_up_evaluation,
    written_results,
)

DATASET = dict(data_root='data/coco/', ann_file='annotations/val.json')


def config(evaluator: object) -> Config:
    return Config(
        dict(
            work_dir='work',
            test_dataloader=dict(dataset=DATASET),
            test_evaluator=evaluator,
        )
    )


@pytest.mark.parametrize('kind', ['CocoMetric', 'mmdet.CocoMetric', 'CocoAPMetric'])
def test_results_are_kept_and_flags_reach_the_metric(kind):
    cfg = config(dict(type=kind, ann_file='some.json', metric='bbox'))
    set_up_evaluation(cfg, classwise=True, evaluator='pycocotools')
    assert cfg.test_evaluator.to_dict() == dict(
        type='CocoAPMetric',
        ann_file='some.json',
        metric='bbox',
        outfile_prefix='work/results',
        classwise=True,
        evaluator='pycocotools',
    )
    assert evaluated_file(cfg) == 'some.json'
    assert not only_formats(cfg)


def test_a_list_of_evaluators():
    other = dict(type='VOCMetric')
    named = dict(type='CocoMetric', outfile_prefix='mine')
    cfg = config([other, named, dict(type='CocoMetric')])
    set_up_evaluation(cfg, format_only=True)
    assert cfg.test_evaluator[0] == other
    prefixes = [e.outfile_prefix for e in cfg.test_evaluator[1:]]
    assert prefixes == ['mine', 'work/results-1']
    assert only_formats(cfg)
    assert evaluated_file(cfg) == 'data/coco/annotations/val.json'


def test_flags_without_a_coco_evaluator():
    cfg = config(dict(type='VOCMetric'))
    set_up_evaluation(cfg)
    assert cfg.test_evaluator == dict(type='VOCMetric')
    assert evaluated_file(cfg) is None
    with pytest.raises(UserError, match='--format-only: test_evaluator of'):
        set_up_evaluation(cfg, format_only=True)


def test_results_of_an_earlier_run_are_not_those_of_this_one(tmp_path):
    cfg = config([dict(type='CocoMetric'), dict(type='VOCMetric')])
    cfg.work_dir = str(tmp_path)
    set_up_evaluation(cfg)
    for name in ('results.bbox.json', 'results.segm.json', 'val.bbox.json'):
        (tmp_path / name).write_text('[]')
    assert len(written_results(cfg)) == 2
    for _ in range(2):
        remove_results(cfg)
        assert written_results(cfg) == []
    assert [path.name for path in tmp_path.iterdir()] == ['val.bbox.json']


def test_results_that_are_nowhere():
    cfg = config(dict(type='CocoMetric'))
    remove_results(cfg)
    assert written_results(cfg) == []

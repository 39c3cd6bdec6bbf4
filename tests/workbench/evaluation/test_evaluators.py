"""What the flags of `tools/test.py` do to the evaluators of a config."""

from __future__ import annotations

import os

import pytest
from mmengine.config import Config

from gn_det.workbench.errors import UserError
from gn_det.workbench.evaluation.evaluators import (
    evaluated_file,
    only_formats,
    remove_old_results,
    result_files,
    set_up_evaluation,
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


def test_results_of_an_earlier_run(tmp_path):
    """In the work directory they go once there are new ones, elsewhere they stay."""
    elsewhere = tmp_path / 'shared'
    elsewhere.mkdir()
    own = dict(type='CocoMetric')
    named = dict(type='CocoMetric', outfile_prefix=str(elsewhere / 'r'))
    cfg = config([own, named])
    cfg.work_dir = str(tmp_path)
    set_up_evaluation(cfg)
    for folder, name in ((tmp_path, 'results'), (elsewhere, 'r')):
        for kind in ('bbox', 'segm', 'scores'):
            (folder / f'{name}.{kind}.json').write_text('[]')
    before = result_files(cfg)
    assert len(before) == 6
    for path in (tmp_path / 'results.bbox.json', elsewhere / 'r.bbox.json'):
        fresh = path.with_name('fresh')
        fresh.write_text('[]')
        fresh.replace(path)
    names = {
        os.path.relpath(path, tmp_path) for path in remove_old_results(cfg, before)
    }
    assert names == {'results.bbox.json', 'shared/r.bbox.json'}
    assert not (tmp_path / 'results.segm.json').exists()
    assert (elsewhere / 'r.segm.json').exists()


def test_results_that_are_nowhere():
    cfg = config(dict(type='CocoMetric'))
    assert result_files(cfg) == {}
    assert remove_old_results(cfg, {}) == []


def test_results_never_replace_the_annotations(tmp_path):
    truth = tmp_path / 'truth.bbox.json'
    metric = dict(
        type='CocoMetric', ann_file=str(truth), outfile_prefix=str(tmp_path / 'truth')
    )
    with pytest.raises(UserError, match=r'would replace the annotations .*truth\.bbox'):
        set_up_evaluation(config(metric))
    (tmp_path / 'r.segm.json').mkdir()
    metric['outfile_prefix'] = str(tmp_path / 'r')
    with pytest.raises(UserError, match=r'r\.segm\.json, which is a folder'):
        set_up_evaluation(config(metric))

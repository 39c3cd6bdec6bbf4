"""The report's figures are COCO's, and an image's F1 is what its words say."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from mmengine.config import Config
from pycocotools.cocoeval import COCOeval

from gn_det.workbench.evaluation.coco_figures import coco_figures
from gn_det.workbench.report.collect import Missing
from gn_det.workbench.report.scores import score
from tests.workbench.report.conftest import results_of

SIDE = 100


def coco(annotations: list[dict], images: int = 2) -> dict:
    return dict(
        images=[
            dict(id=i, file_name=f'{i}.jpg', width=SIDE, height=SIDE)
            for i in range(1, images + 1)
        ],
        categories=[dict(id=3, name='a'), dict(id=7, name='b')],
        annotations=annotations,
    )


def box(image: int, x: float, category: int = 3, **more: object) -> dict:
    return dict(image_id=image, category_id=category, bbox=[x, 0, 20, 20], **more)


def truth_box(number: int, image: int, x: float, **more: object) -> dict:
    return box(image, x, id=number, area=400, iscrowd=0, **more)


def scored(tmp_path, annotations, results, kind='bbox', **dataset):
    ann_file = tmp_path / 'truth.json'
    ann_file.write_text(json.dumps(coco(annotations)))
    results_file = tmp_path / f'val.{kind}.json'
    results_file.write_text(json.dumps(results))
    cfg = Config(dict(val_evaluator=dict(ann_file=str(ann_file))))
    if dataset:
        cfg.val_dataloader = dict(dataset=dict(type='CocoDataset', **dataset))
    return score(kind, results_file, cfg)


def test_image_f1(tmp_path):
    # Numbered from 0, as some tools do: pycocotools alone would not count the first.
    annotations = [truth_box(0, 1, 0), truth_box(1, 1, 40), truth_box(2, 2, 0)]
    results = [
        box(1, 0, score=0.9),  # right at every IoU
        box(1, 70, score=0.8),  # wrong
        box(1, 40, score=0.1),  # right, and not sure enough to count
        # 20 × 20 against 20 × 20 moved by 5: IoU 15/25 = 0.60.
        box(2, 5, score=0.9),
    ]
    found = scored(tmp_path, annotations, results)
    assert found.image_f1[1] == pytest.approx(2 * 1 / (2 + 2))
    # At 0.50, 0.55 and 0.60 of ten thresholds.
    assert found.image_f1[2] == pytest.approx(0.3)


def test_image_without_objects(tmp_path):
    found = scored(tmp_path, [truth_box(1, 1, 0)], [box(1, 0, score=0.9)])
    assert found.image_f1 == {1: 1.0}
    wrong = [box(1, 0, score=0.9), box(2, 0, score=0.9)]
    found = scored(tmp_path, [truth_box(1, 1, 0)], wrong)
    assert found.image_f1 == {1: 1.0, 2: 0.0}


def test_class_without_objects(tmp_path):
    found = scored(tmp_path, [truth_box(1, 1, 0)], [box(1, 0, score=0.9)])
    assert found.classes == ('a', 'b')
    assert found.class_ap[0] == pytest.approx(1.0)
    assert math.isnan(found.class_ap[1])
    assert found.precision == pytest.approx(np.ones((10, 101)))


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_figures_are_those_of_pycocotools(tmp_path, shapes, truth, kind):
    results = results_of(truth, kind)
    file = tmp_path / f'val.{kind}.json'
    file.write_text(json.dumps(results))
    ann_file = str(shapes / 'annotations/instances_val.json')
    found = score(kind, file, Config(dict(test_evaluator=dict(ann_file=ann_file))))

    for one in results if kind == 'segm' else []:
        one.pop('bbox')
    evaluation = COCOeval(truth, truth.loadRes(results), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert 0.1 < evaluation.stats[0] < 0.9
    assert found.ap == pytest.approx(evaluation.stats[0], abs=1e-12)
    assert found.precision[0].mean() == pytest.approx(evaluation.stats[1], abs=1e-12)
    assert found.precision[5].mean() == pytest.approx(evaluation.stats[2], abs=1e-12)


def test_results_of_other_images(tmp_path):
    with pytest.raises(Missing, match='is of other images'):
        scored(tmp_path, [truth_box(1, 1, 0)], [box(9, 0, score=0.9)])


def test_classes_are_those_of_the_config(tmp_path):
    """What the metric has: a class the model does not know is no part of the truth."""
    annotations = [truth_box(1, 1, 0), truth_box(2, 1, 40, category=7)]
    results = [box(1, 0, score=0.9)]
    assert scored(tmp_path, annotations, results).image_f1 == {1: pytest.approx(2 / 3)}
    found = scored(tmp_path, annotations, results, metainfo=dict(classes=('a',)))
    assert found.classes == ('a',)
    assert found.ap == pytest.approx(1.0)
    assert found.precision == pytest.approx(np.ones((10, 101)))
    assert found.image_f1 == {1: 1.0}
    assert [a['category_id'] for a in found.truth.anns.values()] == [3]


def test_figures_are_those_of_the_metric_for_some_of_the_classes(
    shapes, truth, tmp_path
):
    ann_file = str(shapes / 'annotations/instances_val.json')
    classes = ('triangle', 'circle')
    ids = truth.getCatIds(catNms=classes)
    results = [r for r in results_of(truth, 'bbox') if r['category_id'] in ids]
    file = tmp_path / 'val.bbox.json'
    file.write_text(json.dumps(results))
    cfg = Config(
        dict(
            val_evaluator=dict(ann_file=ann_file),
            val_dataloader=dict(
                dataset=dict(type='CocoDataset', metainfo=dict(classes=classes))
            ),
        )
    )
    content = json.loads((shapes / 'annotations/instances_val.json').read_text())
    expected = coco_figures(content, results, 'bbox', ids)
    found = score('bbox', file, cfg)
    assert 0 < expected.values['mAP'] < 1
    assert found.ap == pytest.approx(expected.values['mAP'], abs=1e-12)
    assert set(found.classes) == set(classes)


def test_classes_of_another_set(tmp_path):
    with pytest.raises(Missing, match='none of the classes of the config'):
        scored(
            tmp_path, [truth_box(1, 1, 0)], [box(1, 0, score=0.9)],
            metainfo=dict(classes=('person',)),
        )  # fmt: skip


def test_annotations_without_an_object(tmp_path):
    with pytest.raises(Missing, match='has no object'):
        scored(tmp_path, [], [box(1, 0, score=0.9)])

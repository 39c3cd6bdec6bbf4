"""COCO figures: perfect, empty and partial results."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.registry import METRICS
from mmengine.logging import MMLogger
from pycocotools.coco import COCO

import gn_det.evaluation  # noqa: F401  (registers the metric)

KEYS = [
    f'coco/{kind}_mAP{suffix}'
    for kind in ('bbox', 'segm')
    for suffix in ('', '_50', '_75', '_s', '_m', '_l')
]


def sample(coco: COCO, image_id: int, keep: float) -> dict:
    """The truth of an image as a prediction, the first share of it."""
    record = coco.imgs[image_id]
    anns = coco.loadAnns(coco.getAnnIds(image_id, iscrowd=False))
    anns = anns[: int(len(anns) * keep)]
    boxes = np.array([a['bbox'] for a in anns], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    masks = [coco.annToMask(a) for a in anns]
    shape = (0, record['height'], record['width'])
    return dict(
        img_id=image_id,
        ori_shape=(record['height'], record['width']),
        pred_instances=dict(
            bboxes=torch.from_numpy(boxes),
            scores=torch.ones(len(anns)),
            labels=torch.tensor([a['category_id'] - 1 for a in anns], dtype=torch.long),
            masks=torch.tensor(np.array(masks).reshape(len(anns), *shape[1:])).bool(),
        ),
    )


def evaluate(shapes, keep: float, **options) -> dict[str, float]:
    ann_file = str(shapes / 'annotations/instances_train.json')
    metric = METRICS.build(
        dict(type='CocoAPMetric', ann_file=ann_file, metric=['bbox', 'segm'], **options)
    )
    metric.dataset_meta = dict(classes=('circle', 'square', 'triangle'))
    coco = COCO(ann_file)
    metric.process({}, [sample(coco, image_id, keep) for image_id in coco.imgs])
    return metric.evaluate(size=len(coco.imgs))


def test_truth_as_prediction_is_perfect(shapes):
    figures = evaluate(shapes, keep=1.0)
    assert figures['coco/bbox_mAP'] == 1.0
    assert figures['coco/segm_mAP'] == 1.0


def test_half_of_the_truth_is_not(shapes):
    assert 0 < evaluate(shapes, keep=0.5)['coco/bbox_mAP'] < 1


def test_nothing_detected_is_zero_and_said_in_a_sentence(shapes, monkeypatch):
    said = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text: said.append(text))
    figures = evaluate(shapes, keep=0.0)
    assert figures == dict.fromkeys(KEYS, 0.0)
    assert len(said) == 1
    assert 'detected nothing in 12 images' in said[0]


def test_nothing_detected_gives_the_figures_asked_for(shapes):
    figures = evaluate(shapes, keep=0.0, metric_items=['mAP'])
    assert figures == {'coco/bbox_mAP': 0.0, 'coco/segm_mAP': 0.0}


@pytest.mark.parametrize('keep', [0.0, 1.0])
def test_proposal_figures_have_the_same_names_with_and_without_results(shapes, keep):
    ann_file = str(shapes / 'annotations/instances_train.json')
    figures = {}
    for share in (keep, 1.0):
        metric = METRICS.build(
            dict(type='CocoAPMetric', ann_file=ann_file, metric=['proposal'])
        )
        metric.dataset_meta = dict(classes=('circle', 'square', 'triangle'))
        coco = COCO(ann_file)
        metric.process({}, [sample(coco, i, share) for i in coco.imgs])
        figures[share] = set(metric.evaluate(size=len(coco.imgs)))
    assert figures[keep] == figures[1.0]

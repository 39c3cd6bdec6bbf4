"""What is taken for what, and the score from which a class is worth showing."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from gn_det.workbench.evaluation.coco_scores import Comparison, OperatingPoint
from gn_det.workbench.evaluation.confusion import Confusion, confusions

HERE, FAR, AWAY = [0, 0, 20, 20], [60, 60, 20, 20], [30, 0, 20, 20]
CAT, DOG = 1, 2


def thing(category, box, image=1, **others):
    return dict(image_id=image, category_id=category, bbox=box, **others)


def truth(*objects, images=(1,)):
    annotations = [
        dict(one, id=n, area=400, segmentation=rle(one['bbox']))
        for n, one in enumerate(objects, 1)
    ]
    return dict(
        images=[dict(id=i, width=100, height=100) for i in images],
        annotations=annotations,
        categories=[dict(id=CAT, name='cat'), dict(id=DOG, name='dog')],
    )


def rle(box):
    x, y, width, height = box
    mask = np.zeros((100, 100), np.uint8, order='F')
    mask[y : y + height, x : x + width] = 1
    return coco_mask.encode(mask)


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
@pytest.mark.parametrize(
    ('objects', 'found', 'expected'),
    [
        ([thing(CAT, HERE)], [(CAT, HERE, 0.9)], [('cat', 'cat', 1)]),
        ([thing(CAT, HERE)], [(DOG, HERE, 0.9)], [('cat', 'dog', 1)]),
        ([thing(CAT, HERE)], [], [('cat', None, 1)]),
        ([thing(CAT, HERE)], [(CAT, HERE, 0.2)], [('cat', None, 1)]),
        ([], [(DOG, HERE, 0.9)], [(None, 'dog', 1)]),
        # The surer one takes the object, whatever its class; each object once.
        (
            [thing(CAT, HERE)],
            [(CAT, HERE, 0.5), (DOG, HERE, 0.9)],
            [(None, 'cat', 1), ('cat', 'dog', 1)],
        ),
        (
            [thing(CAT, HERE), thing(CAT, FAR), thing(DOG, AWAY)],
            [(CAT, HERE, 0.9), (CAT, FAR, 0.8), (CAT, AWAY, 0.7)],
            [('cat', 'cat', 2), ('dog', 'cat', 1)],
        ),
        ([thing(CAT, HERE, iscrowd=1)], [(DOG, HERE, 0.9)], []),
        ([thing(CAT, HERE, iscrowd=1)], [(DOG, FAR, 0.9)], [(None, 'dog', 1)]),
        # Of other images nothing is taken.
        ([thing(CAT, HERE)], [(CAT, HERE, 0.9, 7)], [('cat', None, 1)]),
    ],
)
def test_confusions(kind, objects, found, expected):
    results = [
        thing(one, box, *image, score=score, segmentation=rle(box))
        for one, box, score, *image in found
    ]
    pairs = confusions(Comparison(truth(*objects), results, kind), 0.3)
    assert sorted(pairs, key=str) == sorted((Confusion(*p) for p in expected), key=str)


def test_the_threshold_of_the_highest_f1():
    """Two right, one wrong between them, one wrong below: two of two objects at 0.6."""
    objects = [thing(CAT, HERE), thing(CAT, FAR), thing(DOG, AWAY)]
    found = [
        thing(CAT, HERE, score=0.9),
        thing(CAT, AWAY, score=0.7),
        thing(CAT, FAR, score=0.6),
        thing(CAT, AWAY, score=0.2),
        thing(CAT, AWAY, score=0.05),
    ]
    points = Comparison(truth(*objects), found, 'bbox').operating_points()
    # No dog was found.
    assert points == {'cat': OperatingPoint(0.6, 2 / 3, 1.0, 0.8)}


def test_equal_scores_are_kept_or_dropped_together():
    objects = [thing(CAT, HERE)]
    found = [thing(CAT, place, score=0.5) for place in (HERE, FAR, AWAY)]
    (point,) = Comparison(truth(*objects), found, 'bbox').operating_points().values()
    assert point == OperatingPoint(0.5, 1 / 3, 1.0, 0.5)


def test_crowds_are_neither_right_nor_wrong():
    objects = [thing(CAT, HERE), thing(CAT, FAR, iscrowd=1)]
    found = [thing(CAT, FAR, score=0.9), thing(CAT, HERE, score=0.5)]
    (point,) = Comparison(truth(*objects), found, 'bbox').operating_points().values()
    assert point == OperatingPoint(0.5, 1.0, 1.0, 1.0)

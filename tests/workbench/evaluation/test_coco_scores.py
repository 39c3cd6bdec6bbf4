"""The C++ evaluator against pycocotools on random and adversarial results."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gn_det.workbench.evaluation.coco_scores import (
    EVALUATORS,
    SCORES,
    CocoScores,
    Comparison,
)

# pycocotools adds 2⁻⁵² to a number of detections, so a precision may be one ulp less,
# and so may a mean of them.
ROUNDING = 4 * np.finfo(np.float64).eps
HEIGHT, WIDTH = 120, 110
# Around the limits of areas, 32² and 96², and the edges of the image.
LENGTHS = st.one_of(
    st.sampled_from([0.0, 1.0, 31.999, 32.0, 32.001, 95.999, 96.0, 96.001, 110.0]),
    st.floats(0, 120),
)
AREAS = st.sampled_from([0.0, 1023.999, 1024.0, 1024.001, 9215.999, 9216.0, 9216.001])
CONFIDENCES = st.one_of(st.sampled_from([0.0, 0.5, 0.9, 1.0]), st.floats(0, 1))


def coco_scores(
    truth: dict, results: list[dict], kind: str, classes=None, **options
) -> CocoScores:
    return Comparison(truth, results, kind, classes).scores(**options)


def rle(box: list[float], compressed: bool = True) -> dict:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order='F')
    x, y, width, height = (max(0, int(value)) for value in box)
    mask[y : y + height, x : x + width] = 1
    if compressed:
        encoded = coco_mask.encode(mask)
        return dict(size=encoded['size'], counts=encoded['counts'].decode())
    flat = mask.ravel(order='F')
    edges = np.flatnonzero(np.diff(flat, prepend=0))
    counts = np.diff([0, *edges, flat.size])
    return dict(size=[HEIGHT, WIDTH], counts=counts.tolist())


def polygon(box: list[float]) -> list[list[float]]:
    x, y, width, height = box
    return [
        [x, y, x + width, y, x + width, y + height, x, y + height],
        [x, y, x + 9.5, y + 3.25, x - 4, y + 7],
    ]


@st.composite
def sets(draw) -> tuple[dict, list[dict]]:
    """Annotations and detections: gaps in the ids, images and classes without objects,
    crowds, ties, copies, more than 100 detections."""
    image_ids = draw(st.lists(st.integers(1, 900), min_size=1, max_size=3, unique=True))
    class_ids = draw(st.lists(st.integers(0, 90), min_size=1, max_size=3, unique=True))
    places, annotations, results = [], [], []
    boxes = st.tuples(st.floats(-5, 100), st.floats(-5, 100), LENGTHS, LENGTHS)
    for _ in range(draw(st.integers(0, 6))):
        box = list(draw(boxes))
        crowd = draw(st.booleans()) and draw(st.booleans())
        image_id = draw(st.sampled_from(image_ids))
        outline = rle(box, draw(st.booleans())) if crowd else polygon(box)
        places.append((image_id, box))
        annotations.append(
            dict(
                id=len(annotations) + 1,
                image_id=image_id,
                category_id=draw(st.sampled_from(class_ids)),
                bbox=box,
                area=draw(st.one_of(AREAS, st.just(box[2] * box[3]))),
                iscrowd=int(crowd),
                segmentation=outline,
            )
        )
    for _ in range(draw(st.integers(1, 8))):
        image_id, box = draw(
            st.sampled_from(places) if places else st.just((image_ids[0], [5, 5, 9, 9]))
        )
        if draw(st.booleans()):
            box = list(draw(boxes))
        result = dict(
            image_id=draw(st.sampled_from([image_id, image_ids[-1]])),
            category_id=draw(st.sampled_from(class_ids)),
            bbox=box,
            score=draw(CONFIDENCES),
            segmentation=rle(box),
        )
        copies = draw(st.sampled_from([1, 1, 1, 2, 11, 101]))
        results += [dict(result) for _ in range(copies)]
    truth = dict(
        images=[dict(id=i, height=HEIGHT, width=WIDTH) for i in image_ids],
        categories=[dict(id=i, name=f'class {i}') for i in class_ids],
        annotations=annotations,
    )
    return truth, results


def by_pycocotools_itself(truth: dict, results: list[dict], kind: str) -> list[float]:
    """COCOeval as its authors use it."""
    unwanted = 'segmentation' if kind == 'bbox' else 'bbox'
    kept = [{k: v for k, v in r.items() if k != unwanted} for r in results]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(kept)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


def assert_agreement(truth: dict, results: list[dict], kind: str) -> dict[str, float]:
    before = json.dumps([truth, results])
    slow, fast = (
        coco_scores(truth, results, kind, evaluator=name)
        for name in reversed(EVALUATORS)
    )
    assert json.dumps([truth, results]) == before
    assert list(slow.values.values()) == by_pycocotools_itself(truth, results, kind)
    assert fast.values == pytest.approx(slow.values, rel=0, abs=ROUNDING)
    assert fast.class_ap == pytest.approx(slow.class_ap, rel=0, abs=ROUNDING)
    return fast.values


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(case=sets())
def test_random_sets_give_the_same_figures(kind, case):
    assert_agreement(*case, kind)


def one_image(boxes: list, found: list, **annotation) -> tuple[dict, list[dict]]:
    truth = dict(
        images=[
            dict(id=7, height=HEIGHT, width=WIDTH),
            dict(id=9, height=HEIGHT, width=WIDTH),
        ],
        categories=[dict(id=3, name='cup'), dict(id=8, name='fork')],
        annotations=[
            dict(
                id=n, image_id=7, category_id=3, bbox=box, area=box[2] * box[3],
                iscrowd=0, segmentation=polygon(box),
            ) | annotation
            for n, box in enumerate(boxes, 1)
        ],
    )  # fmt: skip
    results = [
        dict(
            image_id=image, category_id=3, bbox=box, score=score, segmentation=rle(box)
        )
        for image, box, score in found
    ]
    return truth, results


BOX = [10, 10, 40, 40]


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
@pytest.mark.parametrize('side', [32, 96])
def test_area_limits_belong_to_both_sizes(kind, side):
    box = [4, 4, side, side]
    figures = assert_agreement(*one_image([box], [(7, box, 0.9)]), kind)
    smaller, larger = ('s', 'm') if side == 32 else ('m', 'l')
    assert figures[f'mAP_{smaller}'] == pytest.approx(figures[f'mAP_{larger}'])
    assert figures[f'AR_{smaller}@100'] == figures[f'AR_{larger}@100'] > 0


def test_crowd_takes_any_number_of_detections():
    found = [(7, BOX, 0.9), (7, BOX, 0.8), (7, BOX, 0.7)]
    truth, results = one_image([BOX], found, iscrowd=1, segmentation=rle(BOX, False))
    figures = assert_agreement(truth, results, 'bbox')
    # Nothing but crowd: neither hits nor misses.
    assert set(figures.values()) == {-1.0}


def test_detections_past_the_hundredth_do_not_count():
    wrong = [(7, [60, 60, 9, 9], 0.9)] * 100
    truth, results = one_image([BOX], [*wrong, (7, BOX, 0.1)])
    assert assert_agreement(truth, results, 'bbox')['mAP'] == 0
    assert assert_agreement(truth, results[1:], 'bbox')['mAP'] > 0


def test_detections_in_an_image_without_objects_lower_ap():
    alone = assert_agreement(*one_image([BOX], [(7, BOX, 0.5)]), 'segm')
    beside = [(9, BOX, 0.9), (7, BOX, 0.5)]
    figures = assert_agreement(*one_image([BOX], beside), 'segm')
    assert 0 < figures['mAP_50'] < alone['mAP_50']


def test_areas_of_masks_are_not_those_of_their_boxes():
    """A thin mask in a large box is a small object."""
    truth, results = one_image([BOX], [(7, BOX, 0.5), (9, BOX, 0.9)])
    results[1]['segmentation'] = rle([10, 10, 1, 40])
    figures = assert_agreement(truth, results, 'segm')
    assert figures['mAP_m'] > figures['mAP']


@pytest.mark.parametrize('evaluator', [*EVALUATORS, None])
def test_annotation_ids_do_not_matter(evaluator):
    """pycocotools takes a match with id 0 for none, and loses objects of one id."""
    truth, results = one_image([BOX, [60, 60, 20, 20]], [(7, BOX, 0.9)])
    expected = coco_scores(truth, results, 'bbox', evaluator=evaluator).values
    for ids in ([0, 1], [5, 5]):
        for annotation, number in zip(truth['annotations'], ids, strict=True):
            annotation['id'] = number
        found = coco_scores(truth, results, 'bbox', evaluator=evaluator).values
        assert found == expected


@pytest.mark.parametrize('rename', [lambda i: f'name {i}', lambda i: 2**70 + i])
@pytest.mark.parametrize('part', ['images', 'categories'])
def test_ids_may_be_names_and_beyond_64_bits(part, rename):
    truth, results = one_image([BOX], [(7, BOX, 0.9)])
    expected = coco_scores(truth, results, 'bbox').values
    key = {'images': 'image_id', 'categories': 'category_id'}[part]
    for record in truth[part]:
        record['id'] = rename(record['id'])
    for record in (*truth['annotations'], *results):
        record[key] = rename(record[key])
    found = coco_scores(truth, results, 'bbox').values
    assert found == pytest.approx(expected, abs=ROUNDING)


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
@pytest.mark.parametrize(
    'broken',
    [
        dict(score=math.nan),
        dict(score=math.inf),
        dict(bbox=[math.nan] * 4),
        dict(bbox=[1.0, 2.0, math.inf, 4.0]),
    ],
)
def test_detections_that_are_no_numbers_are_left_out_by_both(kind, broken):
    truth, results = one_image([BOX], [(7, BOX, 0.5), (9, BOX, 0.4)])
    # By its score it would stand first, by its place it takes the one object.
    broken = results[0] | dict(score=0.9) | broken
    counts = kind == 'segm' and 'bbox' in broken and math.isfinite(broken['score'])
    for place in range(3):
        given = [*results[:place], broken, *results[place:]]
        left = given if counts else results
        for name in EVALUATORS:
            found = coco_scores(truth, given, kind, evaluator=name)
            assert found == coco_scores(truth, left, kind, evaluator=name)
    if not counts:
        empty = coco_scores(truth, [broken], kind)
        assert empty.values == dict.fromkeys(SCORES, 0.0)


def test_no_detection_is_zero():
    truth, _ = one_image([BOX], [])
    found = coco_scores(truth, [], 'segm')
    assert found.values == dict.fromkeys(SCORES, 0.0)
    assert found.class_ap == {'cup': 0.0, 'fork': 0.0}


def test_chosen_classes_and_thresholds():
    truth, results = one_image([BOX], [(7, [10, 10, 40, 30], 0.9)])
    assert coco_scores(truth, results, 'bbox', [8]).class_ap == {'fork': -1.0}
    loose = coco_scores(truth, results, 'bbox', iou_thresholds=[0.5, 0.7])
    strict = coco_scores(truth, results, 'bbox', iou_thresholds=[0.8, 0.9])
    assert loose.values['mAP'] > strict.values['mAP'] == 0
    assert strict.values['mAP_50'] == -1


def placed(image: int, x: float, category: int = 3, **more: object) -> dict:
    return dict(image_id=image, category_id=category, bbox=[x, 0, 20, 20], **more)


def image_f1(objects: list[dict], found: list[dict], classes=None) -> dict:
    truth, _ = one_image([], [])
    truth['annotations'] = [dict(id=0, area=400, **one) for one in objects]
    return Comparison(truth, found, 'bbox', classes).image_f1(0.3)


def test_f1_of_an_image():
    objects = [placed(7, 0), placed(7, 40), placed(9, 0)]
    found = [
        placed(7, 0, score=0.9),  # right at every IoU
        placed(7, 70, score=0.8),  # wrong
        placed(7, 40, score=0.1),  # right, and not sure enough to count
        # 20 × 20 against 20 × 20 moved by 5: IoU 15/25 = 0.60.
        placed(9, 5, score=0.9),
    ]
    scores = image_f1(objects, found)
    assert scores[7] == pytest.approx(2 * 1 / (2 + 2))
    # At 0.50, 0.55 and 0.60 of ten thresholds.
    assert scores[9] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ('objects', 'found', 'expected'),
    [
        ([placed(7, 0)], [placed(7, 0, score=0.9)], {7: 1.0}),
        ([placed(7, 0)], [placed(9, 0, score=0.9)], {7: 0.0, 9: 0.0}),
        ([placed(7, 0)], [], {7: 0.0}),
        # What is found of a crowd is neither right nor wrong, and a crowd no miss.
        ([placed(7, 0, iscrowd=1)], [placed(7, 0, score=0.9)] * 3, {}),
        (
            [placed(7, 0), placed(7, 50, iscrowd=1)],
            [placed(7, 0, score=0.9), placed(7, 50, score=0.9)],
            {7: 1.0},
        ),
        # The right place, and another class.
        ([placed(7, 0)], [placed(7, 0, category=8, score=0.9)], {7: 0.0}),
    ],
)
def test_f1_of_crowds_and_of_images_without_objects(objects, found, expected):
    assert image_f1(objects, found) == pytest.approx(expected)


def test_f1_is_of_the_chosen_classes():
    objects = [placed(7, 0), placed(7, 40, category=8)]
    found = [placed(7, 0, score=0.9)]
    assert image_f1(objects, found) == {7: pytest.approx(2 / 3)}
    assert image_f1(objects, found, [3]) == {7: 1.0}

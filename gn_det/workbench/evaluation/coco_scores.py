"""COCO's twelve scores, and what else its matches say, by the C++ evaluator.

The protocol is COCO's own: IoU 0.50 to 0.95 in steps of 0.05, at most 1, 10 and 100
detections per image and class, objects up to 32² and 96² pixels small and medium.
faster-coco-eval leaves out the 2⁻⁵² that pycocotools adds to the number of detections
in a precision; scores differ by no more than rounding (tests/workbench/evaluation).
"""

from __future__ import annotations

import contextlib
import gc
import io
import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from faster_coco_eval import COCOeval_faster
from faster_coco_eval.core import mask as safe_mask
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gn_det.workbench.evaluation.kinds import KINDS

EVALUATORS = ('faster-coco-eval', 'pycocotools')
# In the order of COCOeval.stats; names as mmdet's CocoMetric has them.
SCORES = (
    'mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l',
    'AR@1', 'AR@10', 'AR@100', 'AR_s@100', 'AR_m@100', 'AR_l@100',
)  # fmt: skip
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
LEAST_THRESHOLD = 0.1
# Axis of the classes in what COCOeval accumulates.
_CLASS_AXIS = {'precision': 2, 'recall': 1, 'scores': 2}


@dataclass(frozen=True)
class CocoScores:
    """Scores from 0 to 1; -1 where there is no object to find, as in COCO.

    Attributes:
        values: by the names of `SCORES`.
        class_ap: AP by name of the class, in the order of the category ids.
        precision: (IoU thresholds, 101 recalls from 0 to 1), float64: the mean over the
            classes that have objects.
    """

    values: dict[str, float]
    class_ap: dict[str, float]
    precision: np.ndarray = field(compare=False)


@dataclass(frozen=True)
class OperatingPoint:
    """What a class gives if detections that score less than `threshold` are dropped.

    From 0 to 1, at IoU 0.50.
    """

    threshold: float
    precision: float
    recall: float
    f1: float


class Comparison:
    """Detections beside the annotations of their images, class by class.

    Args:
        truth: content of a COCO annotation file. Annotations are numbered anew: an id
            of 0 or one given twice would lose objects.
        results: content of a COCO result file. Of the areas that sort detections by
            size, the box's counts for boxes and the mask's for masks. A detection whose
            score or box is not finite is left out: the evaluators would disagree on it.
        kind: `'bbox'` or `'segm'`.
        category_ids: the classes to evaluate; default all of `truth`.
    """

    def __init__(
        self,
        truth: Mapping[str, Any],
        results: Sequence[Mapping[str, Any]],
        kind: str,
        category_ids: Collection[int | str] | None = None,
    ) -> None:
        self.kind = kind
        self.truth, self.results = truth, results
        wanted = None if category_ids is None else set(category_ids)
        self.classes = sorted(
            (c for c in truth['categories'] if wanted is None or c['id'] in wanted),
            key=lambda category: category['id'],
        )
        # In COCO's order, and numbers whatever the ids are: names, or beyond 64 bits.
        images = sorted(truth['images'], key=lambda image: image['id'])
        self._number = {image['id']: n for n, image in enumerate(images, 1)}
        self._images = {n: {**image, 'id': n} for n, image in enumerate(images, 1)}
        self._ids = list(self._number)
        finite = [result for result in results if is_finite(result, kind)]
        self._has_results = bool(finite)
        with _quiet():
            self._objects = self._by_class(truth.get('annotations', ()))
            self._detections = self._by_class(finite)

    def scores(
        self,
        evaluator: str | None = None,
        iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
    ) -> CocoScores:
        """COCO's scores; all of them 0 if there is no detection.

        Args:
            evaluator: one of `EVALUATORS`, by default the first.
            iou_thresholds: instead of COCO's ten. A score at 0.50 or 0.75 is -1 if that
                is not among them.
        """
        thresholds = np.array(iou_thresholds)
        names = [category['name'] for category in self.classes]
        if not self._has_results:
            nothing = np.zeros((len(thresholds), 101))
            return CocoScores(
                dict.fromkeys(SCORES, 0.0), dict.fromkeys(names, 0.0), nothing
            )
        kind = COCOeval if evaluator == 'pycocotools' else _Evaluation
        whole = kind(iouType=self.kind)
        with _quiet():
            parts = [
                self._evaluated(kind, category['id'], iouThrs=thresholds).eval
                for category in self.classes
            ]
            whole.params.iouThrs = thresholds
            whole.eval = {
                part: np.concatenate([one[part] for one in parts], axis)
                for part, axis in _CLASS_AXIS.items()
            }
            whole.summarize()
        # The first range of areas is all of them, the last limit 100 detections.
        precision = whole.eval['precision'][:, :, :, 0, -1]
        has_objects = (precision > -1).any(axis=(0, 1))
        class_ap = np.full(len(names), -1.0)
        class_ap[has_objects] = [
            precision[:, :, k].mean() for k in np.flatnonzero(has_objects)
        ]
        found = precision[:, :, has_objects]
        return CocoScores(
            dict(zip(SCORES, map(float, whole.stats), strict=True)),
            dict(zip(names, class_ap.tolist(), strict=True)),
            found.mean(axis=2) if found.size else np.zeros(found.shape[:2]),
        )

    def image_f1(self, min_score: float) -> dict[int | str, float]:
        """F1 of each image that has objects, or detections that score `min_score`.

        2 Σ share / (detections + objects), over the pairs that match at IoU 0.50; the
        share of a pair is that of COCO's ten thresholds which its IoU reaches. Crowds,
        and detections of them, do not count.
        """
        shares: dict[int, float] = defaultdict(float)
        counts: dict[int, int] = defaultdict(int)
        with _quiet():
            for category in self.classes:
                part = self._matched(category['id'], min_score)
                truth, found = part.cocoGt.anns, part.cocoDt.anns
                for one in (*truth.values(), *found.values()):
                    counts[one['image_id']] += not one['iscrowd']
                for pair, iou in part.eval['matched'].items():
                    detection, annotation = map(int, pair.split('_'))
                    image = found[detection]['image_id']
                    if truth[annotation]['iscrowd']:
                        counts[image] -= 1
                    else:
                        reached = np.count_nonzero(iou >= IOU_THRESHOLDS)
                        shares[image] += reached / len(IOU_THRESHOLDS)
        return {
            self._ids[image - 1]: 2 * shares[image] / count
            for image, count in sorted(counts.items())
            if count
        }

    def operating_points(self) -> dict[str, OperatingPoint]:
        """By name of the class, the threshold whose detections have the highest F1.

        Thresholds below `LEAST_THRESHOLD`, where most detections are, are not tried.
        Classes without objects, and those of which nothing is found, are left out.
        Crowds, and detections of them, do not count.
        """
        points = {}
        for category in self.classes:
            with _quiet():
                part = self._matched(category['id'], LEAST_THRESHOLD)
            truth = part.cocoGt.anns
            matched = {}
            for pair in part.eval['matched']:
                detection, annotation = map(int, pair.split('_'))
                matched[detection] = not truth[annotation]['iscrowd']
            count = sum(not one['iscrowd'] for one in truth.values())
            # A detection of a crowd is neither right nor wrong.
            judged = sorted(
                (one['score'], matched.get(key, False))
                for key, one in part.cocoDt.anns.items()
                if matched.get(key, True)
            )[::-1]
            right = np.cumsum([is_right for _, is_right in judged])
            if not count or not len(right) or not right[-1]:
                continue
            f1 = 2 * right / (np.arange(1, len(right) + 1) + count)
            # Equal scores are dropped together.
            scores = np.array([score for score, _ in judged])
            f1[:-1][scores[:-1] == scores[1:]] = 0
            best = int(f1.argmax())
            points[category['name']] = OperatingPoint(
                float(scores[best]),
                float(right[best] / (best + 1)),
                float(right[best] / count),
                float(f1[best]),
            )
        return points

    def _by_class(
        self, records: Sequence[Mapping[str, Any]]
    ) -> dict[int | str, list[dict[str, Any]]]:
        """What the evaluators need of annotations or detections, by category id."""
        field = KINDS[self.kind].field
        found: dict[int | str, list[dict[str, Any]]] = {
            category['id']: [] for category in self.classes
        }
        for number, one in enumerate(records, 1):
            of_class = found.get(one['category_id'])
            image = self._number.get(one['image_id'])
            if of_class is None or image is None:
                continue
            part = {
                'id': number,
                'image_id': image,
                # Each class is evaluated alone.
                'category_id': 1,
                'iscrowd': int(one.get('iscrowd') or 0),
                field: one[field],
            }
            if 'score' in one:
                part['score'] = one['score']
                part['area'] = _area(one[field], field)
            else:
                part['area'] = one['area']
            of_class.append(part)
        return found

    def _matched(self, category: int | str, min_score: float) -> COCOeval_faster:
        """The matches of one class at IoU 0.50, objects of all sizes."""
        return self._evaluated(
            _Evaluation, category, min_score,
            iouThrs=IOU_THRESHOLDS[:1], areaRng=[[0, 1e10]], areaRngLbl=['all'],
            maxDets=[100],
        )  # fmt: skip

    def _evaluated(
        self,
        kind: type[COCOeval] | type[COCOeval_faster],
        category: int | str,
        min_score: float = -math.inf,
        **params: Any,
    ) -> COCOeval | COCOeval_faster:
        """The evaluation of one class, over the images that have something of it."""
        objects = self._objects[category]
        found = [one for one in self._detections[category] if one['score'] >= min_score]
        numbers = sorted({one['image_id'] for one in (*objects, *found)})
        images = [self._images[number] for number in numbers]
        evaluation = kind(_coco(images, objects), _coco(images, found), self.kind)
        for name, value in params.items():
            setattr(evaluation.params, name, value)
        evaluation.evaluate()
        evaluation.accumulate()
        return evaluation


class _Evaluation(COCOeval_faster):
    """faster-coco-eval, with masks compared by pycocotools' C code.

    It reads an RLE in a tenth of the time. Its answers to damaged ones are no error, so
    the truth's are read by the other before.
    """

    def __init__(
        self, truth: COCO | None = None, found: COCO | None = None, iouType: str = ''
    ) -> None:
        # Of masks too, all but their IoU is as of boxes: areas are given.
        super().__init__(truth, found, 'bbox', print_function=lambda *_: None)
        self._masks = iouType == 'segm'

    def computeIoU(self, image: int, category: int) -> np.ndarray | list:
        """(detections by falling score, objects) of one image."""
        if not self._masks:
            return super().computeIoU(image, category)
        truth, found = (
            dataset.get_instances([image], [category], True)[0][0]
            for dataset in (self.gt_dataset, self.dt_dataset)
        )
        found = sorted(found, key=lambda one: -one['score'])[: self.params.maxDets[-1]]
        size = self.cocoGt.imgs[image]
        return coco_mask.iou(
            [one['segmentation'] for one in found],
            [
                safe_mask.segmToRle(one['segmentation'], size['width'], size['height'])
                for one in truth
            ],
            [one['iscrowd'] for one in truth],
        )


def is_finite(result: Mapping[str, Any], kind: str) -> bool:
    """Whether a detection has a finite score and, where boxes count, a finite box."""
    numbers = [result['score'], *(result['bbox'] if kind == 'bbox' else ())]
    return all(map(math.isfinite, numbers))


def _area(place: Any, field: str) -> float:
    """Of a detection; COCO takes that of an object from its annotation."""
    return place[2] * place[3] if field == 'bbox' else float(coco_mask.area(place))


def _coco(images: list[dict], annotations: list[dict]) -> COCO:
    coco = COCO()
    coco.dataset = {
        'images': images, 'annotations': annotations, 'categories': [{'id': 1}],
    }  # fmt: skip
    coco.createIndex()
    return coco


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """pycocotools tells its progress on stdout; the garbage collector counts records.

    With half a million detections it looks through them again and again.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        if was_on:
            gc.enable()

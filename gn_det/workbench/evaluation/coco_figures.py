"""COCO's twelve figures, by the C++ evaluator or by pycocotools.

The protocol is COCO's own: IoU 0.50 to 0.95 in steps of 0.05, at most 1, 10 and 100
detections per image and class, objects up to 32² and 96² pixels small and medium.
faster-coco-eval leaves out the 2⁻⁵² that pycocotools adds to the number of detections
in a precision; figures differ by no more than rounding (tests/workbench/evaluation).
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import faster_coco_eval
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gn_det.workbench.errors import UserError

EVALUATORS = ('faster-coco-eval', 'pycocotools')
# In the order of COCOeval.stats; names as mmdet's CocoMetric has them.
FIGURES = (
    'mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l',
    'AR@1', 'AR@10', 'AR@100', 'AR_s@100', 'AR_m@100', 'AR_l@100',
)  # fmt: skip
_NEEDED = {'bbox': 'bbox', 'segm': 'segmentation'}


@dataclass(frozen=True)
class CocoFigures:
    """Figures from 0 to 1; -1 where there is no object to find, as in COCO.

    Attributes:
        values: by the names of `FIGURES`.
        class_ap: AP by name of the class, in the order of the category ids.
    """

    values: dict[str, float]
    class_ap: dict[str, float]


def coco_figures(
    truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    kind: str,
    category_ids: Sequence[int] | None = None,
    evaluator: str | None = None,
    iou_thresholds: Sequence[float] | None = None,
) -> CocoFigures:
    """Evaluate detections against annotations.

    Args:
        truth: content of a COCO annotation file. Annotations are numbered anew: an id
            of 0 or one given twice would lose objects.
        results: content of a COCO result file. Of the areas that sort detections by
            size, the box's counts for boxes and the mask's for masks. A detection whose
            score or box is not finite is left out: the evaluators would disagree on it.
        kind: `'bbox'` or `'segm'`.
        category_ids: the classes to evaluate; default all of `truth`.
        evaluator: one of `EVALUATORS`. By default the first, which knows only whole
            numbers of 64 bits as ids of images and categories; for other ids the
            second.
        iou_thresholds: instead of COCO's ten. A figure at 0.50 or 0.75 is -1 if that
            is not among them; always by pycocotools.

    Returns:
        The figures; all of them 0 if `results` is empty.

    Raises:
        UserError: if an evaluator is named that does not know such ids.
    """
    categories = sorted(truth['categories'], key=lambda category: category['id'])
    if category_ids is not None:
        categories = [c for c in categories if c['id'] in set(category_ids)]
    names = [category['name'] for category in categories]
    results = [result for result in results if is_finite(result, kind)]
    if not results:
        return CocoFigures(dict.fromkeys(FIGURES, 0.0), dict.fromkeys(names, 0.0))
    truth = {
        **truth,
        'annotations': [
            {'iscrowd': 0, **annotation, 'id': number}
            for number, annotation in enumerate(truth.get('annotations', ()), 1)
        ],
    }
    # With a box beside the mask, COCO would take the box's area.
    wanted = ('image_id', 'category_id', 'score', _NEEDED[kind])
    detections = [{key: result[key] for key in wanted} for result in results]
    by_pycocotools = evaluator == 'pycocotools' or iou_thresholds is not None
    if not by_pycocotools and not _has_number_ids(truth):
        if evaluator is not None:
            raise UserError(
                f'{evaluator} knows only whole numbers of 64 bits as ids of images and '
                'categories; evaluate these by pycocotools'
            )
        by_pycocotools = True
    evaluate = _by_pycocotools if by_pycocotools else _by_faster_coco_eval
    evaluation = evaluate(truth, detections, kind)
    evaluation.params.catIds = [category['id'] for category in categories]
    if iou_thresholds is not None:
        evaluation.params.iouThrs = np.array(iou_thresholds)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # IoU threshold, recall, class, area (the first is any), limit of detections.
    precision = np.asarray(evaluation.eval['precision'])[:, :, :, 0, -1]
    return CocoFigures(
        dict(zip(FIGURES, map(float, evaluation.stats), strict=True)),
        {name: _mean(precision[:, :, k]) for k, name in enumerate(names)},
    )


def is_finite(result: Mapping[str, Any], kind: str) -> bool:
    """Whether a detection has a finite score and, where boxes count, a finite box."""
    numbers = [result['score'], *(result['bbox'] if kind == 'bbox' else ())]
    return all(map(math.isfinite, numbers))


def _has_number_ids(truth: Mapping[str, Any]) -> bool:
    records = (*truth['images'], *truth['categories'])
    return all(isinstance(r['id'], int) and abs(r['id']) < 2**63 for r in records)


def _mean(precision: np.ndarray) -> float:
    valid = precision[precision > -1]
    return float(valid.mean()) if valid.size else -1.0


def _by_pycocotools(
    truth: dict[str, Any], detections: list[dict[str, Any]], kind: str
) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        return COCOeval(coco, coco.loadRes(detections), kind)


def _by_faster_coco_eval(
    truth: dict[str, Any], detections: list[dict[str, Any]], kind: str
) -> faster_coco_eval.COCOeval_faster:
    coco = faster_coco_eval.COCO(truth)
    return faster_coco_eval.COCOeval_faster(coco, coco.loadRes(detections), kind)

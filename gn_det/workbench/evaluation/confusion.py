"""Which class is taken for which: matches of objects and detections of any class."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as safe_mask
from pycocotools import mask as coco_mask

from gn_det.workbench.evaluation.coco_scores import Comparison, is_finite
from gn_det.workbench.evaluation.kinds import KINDS

IOU = 0.5


@dataclass(frozen=True)
class Confusion:
    """How often an object of class `truth` was found as class `found`.

    `truth` is None for detections of nothing, `found` for objects that nothing found.
    """

    truth: str | None
    found: str | None
    count: int


def confusions(comparison: Comparison, min_score: float) -> tuple[Confusion, ...]:
    """Every pair of classes that occurs, the most frequent first.

    In each image the detections that score `min_score` take, by falling score, the
    object that they overlap most, at IoU 0.50 or more, and that none has taken, as in
    COCO but of any class. What lies on a crowd, and no object, does not count.
    """
    names = {one['id']: one['name'] for one in comparison.classes}
    images = {one['id']: one for one in comparison.truth['images']}
    objects: dict[Any, list[dict]] = defaultdict(list)
    for one in comparison.truth.get('annotations', ()):
        if one['category_id'] in names and one['image_id'] in images:
            objects[one['image_id']].append(one)
    detections: dict[Any, list[dict]] = defaultdict(list)
    for one in comparison.results:
        known = one['category_id'] in names and one['image_id'] in images
        if known and is_finite(one, comparison.kind) and one['score'] >= min_score:
            detections[one['image_id']].append(one)
    counts: Counter[tuple[Any, Any]] = Counter()
    for image in objects.keys() | detections.keys():
        truth = sorted(objects[image], key=lambda one: bool(one.get('iscrowd')))
        found = sorted(detections[image], key=lambda one: -one['score'])
        overlaps = _overlaps(found, truth, comparison.kind, images[image])
        counts.update(_matches(found, truth, overlaps))
    return tuple(
        Confusion(names.get(truth), names.get(found), count)
        for (truth, found), count in sorted(
            counts.items(), key=lambda item: (-item[1], *map(str, item[0]))
        )
    )


def _matches(found: list[dict], truth: list[dict], overlaps: np.ndarray) -> Counter:
    plain = sum(not one.get('iscrowd') for one in truth)
    free = overlaps[:, :plain].copy()
    counts: Counter[tuple[Any, Any]] = Counter()
    taken = set()
    for row, one in enumerate(found):
        best = int(free[row].argmax()) if plain else -1
        if plain and free[row, best] >= IOU:
            counts[truth[best]['category_id'], one['category_id']] += 1
            taken.add(best)
            free[:, best] = -1
        elif not (overlaps[row, plain:] >= IOU).any():
            counts[None, one['category_id']] += 1
    for place in set(range(plain)) - taken:
        counts[truth[place]['category_id'], None] += 1
    return counts


def _overlaps(
    found: list[dict], truth: list[dict], kind: str, image: dict
) -> np.ndarray:
    """IoU of (detections, objects); with a crowd, the share of the detection in it."""
    if not found or not truth:
        return np.zeros((len(found), len(truth)))
    field = KINDS[kind].field
    places = [[one[field] for one in part] for part in (found, truth)]
    if kind == 'segm':
        size = image['width'], image['height']
        places = [[safe_mask.segmToRle(one, *size) for one in part] for part in places]
    crowds = [int(bool(one.get('iscrowd'))) for one in truth]
    return np.asarray(coco_mask.iou(*places, crowds))

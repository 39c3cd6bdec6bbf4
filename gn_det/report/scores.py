"""COCO figures per class, per recall and per image, by pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmengine.config import Config
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gn_det.report.collect import Missing

# COCO's own: ten IoU thresholds from 0.50 to 0.95; the index of 0.50 and of 0.75.
IOU_50, IOU_75 = 0, 5
# What a prediction must score to count for an image, and to be painted.
SCORE_THRESHOLD = 0.3


@dataclass(frozen=True)
class Scores:
    """What results are worth against the truth.

    Attributes:
        kind: `bbox` or `segm`.
        truth: the annotations.
        results: the predictions, loaded beside them.
        classes: category names.
        class_ap: AP (0–1, IoU 0.50:0.95) per class; NaN for a class without objects.
        precision: (10 IoU thresholds, 101 recalls), the mean over the classes.
        image_f1: F1 per image id at `SCORE_THRESHOLD`, the mean over the ten IoU
            thresholds; images with neither objects nor predictions are not in it.
    """

    kind: str
    truth: COCO
    results: COCO
    classes: tuple[str, ...]
    class_ap: np.ndarray
    precision: np.ndarray
    image_f1: dict[int, float]

    @property
    def ap(self) -> float:
        """The mean over the classes that have objects; NaN if none has."""
        valid = self.class_ap[~np.isnan(self.class_ap)]
        return float(valid.mean()) if valid.size else float('nan')


def score(kind: str, results_file: Path, cfg: Config) -> Scores:
    """Evaluate results against the annotations the config names.

    Args:
        kind: `bbox` or `segm`.
        results_file: COCO results.
        cfg: names annotations in its evaluators; the first that hold all images of the
            results are taken.

    Raises:
        Missing: if the results cannot be read, are empty, or fit no annotations.
    """
    found = _read_results(results_file, kind)
    truth = _truth(cfg, {record['image_id'] for record in found}, results_file)
    # pycocotools tells its progress on stdout.
    with contextlib.redirect_stdout(io.StringIO()):
        results = truth.loadRes(found)
        evaluation = COCOeval(truth, results, kind)
        evaluation.params.areaRng = evaluation.params.areaRng[:1]
        evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    # precision is (IoU, recall, class, area, most detections), -1 where undefined.
    precision = evaluation.eval['precision'][:, :, :, 0, 0]
    precision = np.where(precision < 0, np.nan, precision)
    has_objects = ~np.isnan(precision).all(axis=(0, 1))
    class_ap = np.full(precision.shape[2], np.nan)
    class_ap[has_objects] = precision[:, :, has_objects].mean(axis=(0, 1))
    names = tuple(truth.cats[cat]['name'] for cat in evaluation.params.catIds)
    mean = precision[:, :, has_objects]
    return Scores(
        kind=kind,
        truth=truth,
        results=results,
        classes=names,
        class_ap=class_ap,
        precision=mean.mean(axis=2) if has_objects.any() else mean.sum(axis=2),
        image_f1=_image_f1([e for e in evaluation.evalImgs if e is not None]),
    )


def _read_results(path: Path, kind: str) -> list[dict]:
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise Missing(f'{path} is not whole JSON ({error}); evaluate again') from error
    if not found:
        raise Missing(f'{path} holds no detection: the model found nothing')
    if kind == 'segm':
        for record in found:
            # With a box, pycocotools would take the results for boxes.
            record.pop('bbox', None)
    return found


def _truth(cfg: Config, images: set[int], results_file: Path) -> COCO:
    wanted = []
    for key in ('val_evaluator', 'test_evaluator'):
        evaluators = cfg.get(key) or []
        evaluators = evaluators if isinstance(evaluators, list) else [evaluators]
        wanted += [e['ann_file'] for e in evaluators if e.get('ann_file')]
    wanted = list(dict.fromkeys(wanted))
    if not wanted:
        raise Missing('the config names no annotations (val_evaluator.ann_file)')
    present = [path for path in wanted if os.path.isfile(path)]
    if not present:
        raise Missing(
            f'annotations not found: {", ".join(wanted)}; run tools/report.py where '
            'training ran, or with --data-root PATH'
        )
    for path in present:
        truth = _read_truth(path)
        if truth.anns and images <= set(truth.imgs):
            return truth
    raise Missing(f'{results_file} is of other images than {", ".join(present)}')


def _read_truth(path: str) -> COCO:
    truth = COCO()
    try:
        content = json.loads(Path(path).read_text())
        # pycocotools takes an object with the id 0 for one that was not matched.
        for number, annotation in enumerate(content['annotations'], start=1):
            annotation['id'] = number
        content.setdefault('info', {})
        truth.dataset = content
        with contextlib.redirect_stdout(io.StringIO()):
            truth.createIndex()
    except (ValueError, KeyError, TypeError) as error:
        raise Missing(f'{path} is not COCO JSON: {error!r}') from error
    return truth


def _image_f1(evaluations: Sequence[dict]) -> dict[int, float]:
    """F1 = 2 TP / (predictions + objects) of each image, without crowds."""
    matched: dict[int, np.ndarray] = {}
    counted: dict[int, np.ndarray] = {}
    for one in evaluations:
        image = one['image_id']
        sure = np.asarray(one['dtScores']) >= SCORE_THRESHOLD
        counts = sure & ~np.asarray(one['dtIgnore'], bool)
        hits = counts & (np.asarray(one['dtMatches']) > 0)
        objects = int(np.sum(np.asarray(one['gtIgnore']) == 0))
        matched[image] = matched.get(image, 0) + hits.sum(axis=1)
        counted[image] = counted.get(image, 0) + counts.sum(axis=1) + objects
    return {
        image: float(np.mean(2 * matched[image] / np.maximum(total, 1)))
        for image, total in counted.items()
        if total.any()
    }

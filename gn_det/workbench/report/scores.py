"""COCO figures per class, per recall and per image, by pycocotools."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gn_det.workbench.inputs.annotations import (
    check_annotations,
    check_results,
    read_results,
)
from gn_det.workbench.inputs.config_parts import evaluators, leaf_datasets
from gn_det.workbench.inputs.data import class_names
from gn_det.workbench.report.collect import Missing

# COCO's own: ten IoU thresholds from 0.50 to 0.95; the index of 0.50 and of 0.75.
IOU_50, IOU_75 = 0, 5
# What a prediction must score to count for an image, and to be painted.
SCORE_THRESHOLD = 0.3
# Of a detection; with a box beside the mask, pycocotools would evaluate boxes.
_WANTED = {
    kind: ('image_id', 'category_id', 'score', field)
    for kind, field in (('bbox', 'bbox'), ('segm', 'segmentation'))
}


@dataclass(frozen=True)
class Scores:
    """What results are worth against the truth.

    Attributes:
        kind: `bbox` or `segm`.
        truth: the annotations.
        results: the predictions, loaded beside them.
        classes: names of the evaluated categories.
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
            results are taken. The classes are those of the evaluator's dataset, as the
            metric has them; objects of others are no part of the truth.

    Raises:
        Missing: if the results are empty, or fit no annotations.
        UserError: if results or annotations are not what COCO's files hold.
    """
    found = read_results(results_file)
    if not found:
        raise Missing(f'{results_file} holds no detection: the model found nothing')
    images = {record['image_id'] for record in found}
    ann_file, content = _truth(cfg, kind, images, results_file)
    check_results(results_file, found, content, [kind])
    truth = _of_classes(content, _classes(cfg, ann_file), ann_file)
    found = [
        {key: value for key, value in record.items() if key in _WANTED[kind]}
        for record in found
        if record['category_id'] in truth.cats
    ]
    if not found:
        raise Missing(f'{results_file} holds no detection of the classes of the config')
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


def _truth(
    cfg: Config, kind: str, images: set[int], results_file: Path
) -> tuple[str, dict[str, Any]]:
    """The annotations that results are of: the file and its content."""
    wanted = list(dict.fromkeys(path for _, path in _annotations(cfg)))
    if not wanted:
        raise Missing('the config names no annotations (val_evaluator.ann_file)')
    present = [path for path in wanted if os.path.isfile(path)]
    if not present:
        raise Missing(
            f'annotations not found: {", ".join(wanted)}; run tools/report.py where '
            'training ran, or with --data-root PATH'
        )
    for path in present:
        content, _ = check_annotations(path, [kind])
        if images <= {image['id'] for image in content['images']}:
            if not content['annotations']:
                raise Missing(f'{path} has no object: there is nothing to compare with')
            return path, content
    raise Missing(f'{results_file} is of other images than {", ".join(present)}')


def _annotations(cfg: Config) -> Iterator[tuple[str, str]]:
    """Split and annotation file of every evaluator that names one."""
    for split in ('val', 'test'):
        for one in evaluators(cfg, split):
            if one.get('ann_file'):
                yield split, one['ann_file']


def _classes(cfg: Config, ann_file: str) -> tuple[str, ...] | None:
    """The classes that are evaluated on a file; None if the config names none."""
    split = next(split for split, path in _annotations(cfg) if path == ann_file)
    dataset = (cfg.get(f'{split}_dataloader') or {}).get('dataset')
    return class_names(leaf_datasets(dataset)[0]) if dataset else None


def _of_classes(
    content: dict[str, Any], classes: tuple[str, ...] | None, ann_file: str
) -> COCO:
    categories = [
        category
        for category in content['categories']
        if classes is None or category['name'] in classes
    ]
    if not categories:
        raise Missing(f'none of the classes of the config is a category of {ann_file}')
    ids = {category['id'] for category in categories}
    objects = [a for a in content['annotations'] if a['category_id'] in ids]
    truth = COCO()
    truth.dataset = {
        'info': {},
        **content,
        'categories': categories,
        # pycocotools takes an object with the id 0 for one that was not matched.
        'annotations': [
            {'iscrowd': 0, **one, 'id': number} for number, one in enumerate(objects, 1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
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

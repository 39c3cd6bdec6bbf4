"""Predictions beside the truth, several images on one sheet."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO


def load_predictions(path: str | Path) -> list[dict]:
    """The predictions that `tools/test.py --out` dumped.

    The file is the project's own output; unpickling runs what a file says, so it is
    not for files from elsewhere.
    """
    with open(path, 'rb') as file:
        return pickle.load(file)


def draw_sheet(
    predictions: Sequence[dict],
    truth: COCO,
    classes: Sequence[str],
    path: str | Path,
    score_threshold: float = 0.5,
    columns: int = 4,
) -> None:
    """Draw each image twice, truth on the left and predictions on the right.

    Args:
        predictions: records of `load_predictions`, one tile pair each.
        truth: the annotations of the same images.
        classes: category names in the order of the predicted labels.
        path: the PNG to write.
        score_threshold: predictions with a lower score are left out.
        columns: pairs side by side.
    """
    rows = -(-len(predictions) // columns)
    figure = Figure(figsize=(5.2 * columns, 2.9 * rows), layout='constrained')
    grid = figure.subplots(rows, 2 * columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis('off')
    for index, record in enumerate(predictions):
        image = cv2.imread(str(record['img_path']))[..., ::-1]
        left, right = grid[2 * index : 2 * index + 2]
        left.set_title('truth', fontsize='small')
        right.set_title('prediction', fontsize='small')
        _show(left, image, _truth_objects(truth, record['img_id'], classes))
        _show(right, image, _predicted_objects(record, classes, score_threshold))
    figure.savefig(path, dpi=80)


def _truth_objects(truth: COCO, image_id: int, classes: Sequence[str]) -> list[tuple]:
    """(label, caption, box x y w h, mask) of every annotated object."""
    objects = []
    for ann in truth.loadAnns(truth.getAnnIds(imgIds=image_id)):
        name = truth.cats[ann['category_id']]['name']
        caption = f'{name} (crowd)' if ann.get('iscrowd') else name
        objects.append(
            (classes.index(name), caption, ann['bbox'], truth.annToMask(ann))
        )
    return objects


def _predicted_objects(
    record: dict, classes: Sequence[str], score_threshold: float
) -> list[tuple]:
    """(label, caption, box x y w h, mask) of every prediction worth showing."""
    found = record['pred_instances']
    objects = []
    for i in np.flatnonzero(np.asarray(found['scores']) >= score_threshold):
        x1, y1, x2, y2 = map(float, found['bboxes'][i])
        label = int(found['labels'][i])
        caption = f'{classes[label]} {float(found["scores"][i]):.2f}'
        mask = coco_mask.decode(found['masks'][i]) if 'masks' in found else None
        objects.append((label, caption, (x1, y1, x2 - x1, y2 - y1), mask))
    return objects


def _show(axes: Axes, image: np.ndarray, objects: list[tuple]) -> None:
    canvas = image.astype(np.float32) / 255
    colors = colormaps['tab10'].colors
    for label, _, _, mask in objects:
        if mask is not None:
            color = np.array(colors[label % len(colors)], np.float32)
            canvas[mask > 0] = 0.45 * canvas[mask > 0] + 0.55 * color
    axes.imshow(canvas)
    for label, caption, (x, y, width, height), mask in objects:
        color = colors[label % len(colors)]
        if mask is not None and mask.any():
            axes.contour(mask, levels=[0.5], colors='white', linewidths=0.8)
        axes.add_patch(
            Rectangle((x, y), width, height, fill=False, color=color, linewidth=1)
        )
        text = axes.text(
            x, y, caption, fontsize=6, color='white', verticalalignment='bottom',
            bbox=dict(facecolor=color, alpha=0.8, pad=0.6, edgecolor='none'),
        )  # fmt: skip
        # A long caption must not push the tiles apart.
        text.set_in_layout(False)

"""Predictions beside the truth, several images on one sheet."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from gn_det.workbench.inputs import images


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
        image = read_image(record['img_path'])
        left, right = grid[2 * index : 2 * index + 2]
        left.set_title('truth', fontsize='small')
        right.set_title('prediction', fontsize='small')
        annotations = truth.loadAnns(truth.getAnnIds(imgIds=record['img_id']))
        paint(left, image, coco_objects(truth, annotations, classes))
        paint(right, image, _predicted_objects(record, classes, score_threshold))
    figure.savefig(path, dpi=80)


def read_image(path: str | Path) -> np.ndarray:
    """The (H, W, 3) RGB bytes of an image.

    Raises:
        OSError: if the file is missing or not an image.
    """
    try:
        return images.read_image(path)[..., ::-1]
    except images.Unreadable as reason:
        raise OSError(f'cannot read image {path}: {reason}') from reason


def coco_objects(
    coco: COCO,
    annotations: Sequence[dict],
    classes: Sequence[str],
    with_masks: bool = True,
) -> list[tuple]:
    """(label, caption, box x y w h, mask) of annotations, or of results with a score.

    Args:
        coco: what the annotations are of.
        annotations: of one image.
        classes: category names; the place of a name is its label.
        with_masks: whether the masks are wanted; otherwise they are None.
    """
    objects = []
    for ann in annotations:
        name = coco.cats[ann['category_id']]['name']
        caption = f'{name} (crowd)' if ann.get('iscrowd') else name
        caption = f'{caption} {ann["score"]:.2f}' if 'score' in ann else caption
        mask = coco.annToMask(ann) if with_masks else None
        objects.append((classes.index(name), caption, ann['bbox'], mask))
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


def paint(axes: Axes, image: np.ndarray, objects: Sequence[tuple]) -> None:
    """Show an RGB image with the objects of `coco_objects` on it."""
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
            parse_math=False,
        )  # fmt: skip
        # A long caption must not push the tiles apart.
        text.set_in_layout(False)

"""The images a model did best and worst on, truth beside prediction."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from mmengine.config import Config

from gn_det.workbench.evaluation.sheet import coco_objects, paint, read_image
from gn_det.workbench.inputs.config_parts import leaf_datasets
from gn_det.workbench.report.collect import Missing
from gn_det.workbench.report.scores import SCORE_THRESHOLD, Scores

_COUNT = 4
_SIDE_INCH, _DPI = 3.1, 110


@dataclass(frozen=True)
class Picture:
    """One image of the report.

    Attributes:
        name: its file.
        f1: as in `Scores.image_f1`.
        address: a JPEG of truth (left) and prediction (right), as a data address.
    """

    name: str
    f1: float
    address: str


@dataclass(frozen=True)
class Pictures:
    """At most four best and four worst images; none is in both.

    Attributes:
        best, worst: the pictures, the best and the worst first.
        unreadable: files that should have been among them, and why they are not.
    """

    best: tuple[Picture, ...]
    worst: tuple[Picture, ...]
    unreadable: tuple[str, ...]


def best_and_worst(scores: Scores, cfg: Config) -> Pictures:
    """Paint the images that the model did best and worst on.

    Raises:
        Missing: if no image can be ranked, or their files are not there.
    """
    ranked = sorted(scores.image_f1, key=lambda i: (-scores.image_f1[i], i))
    if not ranked:
        raise Missing('no image has objects or predictions')
    count = min(_COUNT, -(-len(ranked) // 2))
    folder = _image_folder(cfg, scores, ranked)
    best = ranked[:count]
    worst = [image for image in ranked[::-1][:count] if image not in best]
    painted: dict[int, Picture] = {}
    unreadable = []
    for image in (*best, *worst):
        try:
            painted[image] = _picture(scores, folder, image)
        except OSError as error:
            unreadable.append(str(error))
    return Pictures(
        best=tuple(painted[image] for image in best if image in painted),
        worst=tuple(painted[image] for image in worst if image in painted),
        unreadable=tuple(unreadable),
    )


def _image_folder(cfg: Config, scores: Scores, images: Sequence[int]) -> str:
    """The folder of the config that has one of these images."""
    tried = []
    for key in ('val_dataloader', 'test_dataloader'):
        dataset = leaf_datasets((cfg.get(key) or {}).get('dataset') or {})[0]
        prefix = (dataset.get('data_prefix') or {}).get('img', '')
        folder = os.path.join(dataset.get('data_root') or '', prefix)
        paths = [
            os.path.join(folder, scores.truth.imgs[i]['file_name']) for i in images
        ]
        if any(map(os.path.isfile, paths)):
            return folder
        tried.append(paths[0])
    raise Missing(
        f'image not found: {" or ".join(dict.fromkeys(tried))}; run tools/report.py '
        'where training ran, or with --data-root PATH'
    )


def _picture(scores: Scores, folder: str, image_id: int) -> Picture:
    record = scores.truth.imgs[image_id]
    truth = scores.truth.loadAnns(scores.truth.getAnnIds(imgIds=image_id))
    found = [
        ann
        for ann in scores.results.loadAnns(scores.results.getAnnIds(image_id))
        if ann['score'] >= SCORE_THRESHOLD
    ]
    with_masks = scores.kind == 'segm'
    image = read_image(os.path.join(folder, record['file_name']))
    ratio = image.shape[0] / image.shape[1]
    figure = Figure(
        figsize=(2 * _SIDE_INCH, _SIDE_INCH * ratio + 0.3), layout='constrained'
    )
    pair = figure.subplots(1, 2)
    for axes, title, coco, anns in (
        (pair[0], 'truth', scores.truth, truth),
        (pair[1], 'prediction', scores.results, found),
    ):
        axes.axis('off')
        axes.set_title(title, fontsize='small')
        paint(axes, image, coco_objects(coco, anns, scores.classes, with_masks))
    content = io.BytesIO()
    figure.savefig(content, format='jpg', dpi=_DPI, pil_kwargs=dict(quality=82))
    encoded = base64.b64encode(content.getvalue()).decode()
    return Picture(
        record['file_name'],
        scores.image_f1[image_id],
        f'data:image/jpeg;base64,{encoded}',
    )

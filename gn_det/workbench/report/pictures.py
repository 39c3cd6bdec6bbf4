"""The images a model did best and worst on, truth beside prediction."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from faster_coco_eval.core import mask as safe_mask
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mmengine.config import Config

from gn_det.workbench.evaluation.kept_scores import (
    KeptScores,
    PaintedObject,
    RankedImage,
)
from gn_det.workbench.evaluation.text import printable
from gn_det.workbench.inputs import images
from gn_det.workbench.inputs.config_parts import leaf_datasets
from gn_det.workbench.report.run import Missing

_SIDE_INCH, _DPI = 3.1, 110
_COLORS = colormaps['tab10'].colors


@dataclass(frozen=True)
class Picture:
    """One image of the report.

    Attributes:
        name: its file.
        f1: as in `RankedImage.f1`.
        address: a JPEG of truth (left) and prediction (right), as a data address.
    """

    name: str
    f1: float
    address: str

    @property
    def text(self) -> str:
        """Words for who cannot see it."""
        return f'truth and prediction of {self.name}'

    @property
    def caption(self) -> str:
        """What stands below it."""
        return f'{self.name}, F1 {self.f1:.3f}'


@dataclass(frozen=True)
class Pictures:
    """The best and the worst images.

    Attributes:
        best, worst: the pictures, the best and the worst first.
        unreadable: files that should have been among them, and why they are not.
    """

    best: tuple[Picture, ...]
    worst: tuple[Picture, ...]
    unreadable: tuple[str, ...]


def best_and_worst(scores: KeptScores, cfg: Config) -> Pictures:
    """Paint the images that the model did best and worst on.

    Args:
        scores: with the images and their objects.
        cfg: says where the images are.

    Raises:
        Missing: if no image was ranked, or their files are not there.
    """
    shown = (*scores.best, *scores.worst)
    if not shown:
        raise Missing('no image has objects or predictions')
    folder = _image_folder(cfg, [image.file_name for image in shown])
    numbers = {name: number for number, name in enumerate(scores.class_ap)}
    painted: dict[str, Picture] = {}
    unreadable = []
    for image in shown:
        path = os.path.join(folder, image.file_name)
        try:
            painted[image.file_name] = _picture(image, path, numbers)
        except (images.Unreadable, OSError, ValueError) as error:
            unreadable.append(f'cannot paint {path}: {error}')
    return Pictures(
        best=tuple(painted[i.file_name] for i in scores.best if i.file_name in painted),
        worst=tuple(
            painted[i.file_name] for i in scores.worst if i.file_name in painted
        ),
        unreadable=tuple(unreadable),
    )


def _image_folder(cfg: Config, names: Sequence[str]) -> str:
    """The folder of the config that has one of these images."""
    tried = []
    for key in ('val_dataloader', 'test_dataloader'):
        for dataset in leaf_datasets((cfg.get(key) or {}).get('dataset') or {}):
            prefix = (dataset.get('data_prefix') or {}).get('img', '')
            folder = os.path.join(dataset.get('data_root') or '', prefix)
            paths = [os.path.join(folder, name) for name in names]
            if any(map(os.path.isfile, paths)):
                return folder
            tried.append(paths[0])
    raise Missing(
        f'image not found: {" or ".join(dict.fromkeys(tried))}; run gn-det report '
        'where training ran, or with --data-root PATH'
    )


def _picture(image: RankedImage, path: str, numbers: dict[str, int]) -> Picture:
    # A pipe would be waited for.
    if not os.path.isfile(path):
        raise OSError('no such file')
    pixels = images.read_image(path)[..., ::-1]
    ratio = pixels.shape[0] / pixels.shape[1]
    figure = Figure(
        figsize=(2 * _SIDE_INCH, _SIDE_INCH * ratio + 0.3), layout='constrained'
    )
    for axes, title, objects in zip(
        figure.subplots(1, 2),
        ('truth', 'prediction'),
        (image.truth, image.found),
        strict=True,
    ):
        axes.axis('off')
        axes.set_title(title, fontsize='small')
        paint(axes, pixels, objects, numbers)
    return Picture(image.file_name, image.f1, jpeg_address(figure))


def jpeg_address(figure: Figure) -> str:
    """A figure as a JPEG in a data address."""
    content = io.BytesIO()
    figure.savefig(content, format='jpg', dpi=_DPI, pil_kwargs=dict(quality=82))
    encoded = base64.b64encode(content.getvalue()).decode()
    return f'data:image/jpeg;base64,{encoded}'


def paint(
    axes: Axes,
    pixels: np.ndarray,
    objects: Sequence[PaintedObject],
    numbers: dict[str, int],
) -> None:
    """Show an image with objects on it, each class in a colour of its own."""
    canvas = pixels.astype(np.float32) / 255
    colors = [_COLORS[numbers.get(one.name, 0) % len(_COLORS)] for one in objects]
    masks = [_mask(one, pixels.shape[:2]) for one in objects]
    for mask, color in zip(masks, colors, strict=True):
        if mask is not None:
            canvas[mask] = 0.45 * canvas[mask] + 0.55 * np.array(color, np.float32)
    axes.imshow(canvas)
    height, width = pixels.shape[:2]
    for one, mask, color in zip(objects, masks, colors, strict=True):
        if mask is not None and mask.any() and not mask.all():
            axes.contour(mask, levels=[0.5], colors='white', linewidths=0.8)
        x, y, *sides = one.box
        left, top = np.clip([x, y], 0, [width, height])
        right, bottom = np.clip([x + sides[0], y + sides[1]], 0, [width, height])
        axes.add_patch(
            Rectangle(
                (left, top), right - left, bottom - top,
                fill=False, color=color, linewidth=1,
            )
        )  # fmt: skip
        text = axes.text(
            left, top, _caption(one), fontsize=6, color='white',
            verticalalignment='bottom', parse_math=False,
            bbox=dict(facecolor=color, alpha=0.8, pad=0.6, edgecolor='none'),
        )  # fmt: skip
        # A long caption must not push the tiles apart.
        text.set_in_layout(False)
    # A box at the border would widen the view, and the image would shrink in its tile.
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def _mask(one: PaintedObject, shape: tuple[int, int]) -> np.ndarray | None:
    """(H, W) bool, or None without a mask."""
    if one.mask is None:
        return None
    if one.mask.size != shape:
        raise ValueError(f'a mask of {one.mask.size} pixels in an image of {shape}')
    try:
        return safe_mask.decode(vars(one.mask)).astype(bool)
    except RuntimeError as error:
        raise ValueError(f'a damaged mask: {error}') from error


def _caption(one: PaintedObject) -> str:
    name = printable(one.name)[:40]
    name = f'{name} (crowd)' if one.crowd else name
    return name if one.score is None else f'{name} {one.score:.2f}'

"""An HTML sheet of what a model is fed (`gn-det browse`)."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Canvas
from mmengine.config import Config

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.annotations import read_json
from gn_det.workbench.inputs.building import type_name
from gn_det.workbench.inputs.config_parts import leaf_datasets
from gn_det.workbench.inputs.data import check_data, class_names
from gn_det.workbench.inspection.feed import FedImage, fed_batches
from gn_det.workbench.report.page import Section, Table, write_page
from gn_det.workbench.report.pictures import jpeg_address, paint

_SIDE_INCH = 5.6
# COCO's bounds of small, medium and large objects, in pixels.
_SMALL, _MEDIUM = 32**2, 96**2


@dataclass(frozen=True)
class Picture:
    """An image of the sheet: a data address, words for it, and what stands below."""

    address: str
    text: str
    caption: str


def write_sheet(cfg: Config, split: str, count: int, path: str | Path) -> int:
    """Write what the model is fed first of a split, with its boxes and masks.

    Args:
        cfg: a whole config.
        split: `'train'`, `'val'` or `'test'`.
        count: images to show, at most.
        path: the page.

    Returns:
        How many are shown.

    Raises:
        UserError: for wrong data or settings, or if the file cannot be written.
    """
    if cfg.get(f'{split}_dataloader') is None:
        raise UserError(f'{cfg.filename} has no {split}_dataloader')
    notes = check_data(cfg, [split])
    objects = _class_section(cfg, split)
    batches = list(fed_batches(cfg, split, count))
    numbers = {name: number for number, name in enumerate(_classes(cfg, split))}
    shown = sum(map(len, batches))
    images = Section(
        'Images',
        pictures=_by_batch(batches, numbers),
        note='As the backbone gets them, back in colours: after the pipeline, with the '
        'padding of their batch. Boxes and masks are the truth that the losses see.'
        if split == 'train'
        else 'As the backbone gets them, back in colours. Boxes and masks are the '
        'truth, brought to their scale.',
        missing=notes,
    )
    write_page(
        Path(path),
        f'What {Path(cfg.filename).stem} is fed',
        f'{shown} images of {split}_dataloader',
        [],
        [images, objects, _pipeline_section(cfg, split)],
    )
    return shown


def _classes(cfg: Config, split: str) -> Sequence[str]:
    dataset = leaf_datasets(cfg[f'{split}_dataloader'].dataset)[0]
    return class_names(dataset) or ()


def _by_batch(
    batches: Sequence[Sequence[FedImage]], numbers: dict[str, int]
) -> dict[str, list[Picture]]:
    pictures = [[_picture(image, numbers) for image in batch] for batch in batches]
    if all(len(batch) == 1 for batch in batches):
        return {'One by one': [picture for batch in pictures for picture in batch]}
    return {f'Batch {number}': batch for number, batch in enumerate(pictures, 1)}


def _picture(image: FedImage, numbers: dict[str, int]) -> Picture:
    height, width = image.pixels.shape[:2]
    canvas = Canvas(figsize=(_SIDE_INCH, _SIDE_INCH * height / width))
    axes = canvas.add_axes((0, 0, 1, 1))
    axes.axis('off')
    paint(axes, image.pixels, image.objects, numbers)
    own = image.size
    padding = '' if own == (height, width) else f', padded to {width} x {height}'
    flip = ', flipped' if image.flipped else ''
    count = len(image.objects)
    return Picture(
        address=jpeg_address(canvas),
        text=f'{image.name} with its boxes and masks',
        caption=f'{image.name}: {own[1]} x {own[0]}{padding}{flip}; '
        f'{count} object{"s" if count != 1 else ""}',
    )


def _class_section(cfg: Config, split: str) -> Section:
    """The objects of each class in the files, by COCO's sizes."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    files = [_ann_file(one) for one in _coco(cfg[f'{split}_dataloader'].dataset)]
    for file in files:
        content = read_json(file)
        names = {one['id']: one['name'] for one in content['categories']}
        for name, items in _by_class(content.get('annotations') or (), names):
            counts[name].update(_tallied(items))
    columns = ('objects', 'images', 'small', 'medium', 'large')
    rows = [
        [name, *(str(counts[name][column]) for column in columns)]
        for name in _classes(cfg, split)
    ]
    return Section(
        'Classes',
        table=Table(['', *columns], rows),
        note='Of the whole set; by area in its own pixels, small is below '
        f'{_SMALL:,} and large from {_MEDIUM:,} on. From {", ".join(files)}.',
    )


def _coco(dataset: Any) -> list[Any]:
    return [one for one in leaf_datasets(dataset) if one.get('ann_file')]


def _ann_file(dataset: Any) -> str:
    return os.path.join(dataset.get('data_root') or '', dataset.ann_file)


def _by_class(
    annotations: Iterable[dict[str, Any]], names: dict[Any, str]
) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in annotations:
        found[names[one['category_id']]].append(one)
    return found.items()


def _tallied(items: Sequence[dict[str, Any]]) -> dict[str, int]:
    areas = [one['area'] for one in items]
    small, large = (
        sum(area < _SMALL for area in areas),
        sum(area >= _MEDIUM for area in areas),
    )
    return dict(
        objects=len(items),
        images=len({one['image_id'] for one in items}),
        small=small,
        medium=len(items) - small - large,
        large=large,
    )


def _pipeline_section(cfg: Config, split: str) -> Section:
    loader = cfg[f'{split}_dataloader']
    dataset = leaf_datasets(loader.dataset)[0]
    steps = [
        [f'{number}. {type_name(step)}', _settings(step)]
        for number, step in enumerate(dataset.get('pipeline') or (), 1)
    ]
    return Section(
        'Pipeline',
        table=Table(
            ['', ''],
            [
                *steps,
                ['batch', f'{loader.get("batch_size")} images a process'],
                ['preprocessing', _settings(cfg.model.data_preprocessor)],
            ],
        ),
    )


def _settings(part: Any) -> str:
    return ', '.join(
        f'{k}={v}' for k, v in part.items() if k not in ('type', '_scope_')
    )

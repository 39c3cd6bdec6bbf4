"""The one look at a COCO annotation file that every tool takes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Hashable
from pathlib import Path
from typing import Any

import numpy as np

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.annotations.masks import check_segmentations
from gn_det.workbench.inputs.annotations.reading import read_json
from gn_det.workbench.inputs.annotations.records import (
    AREA,
    BOX,
    FLAG,
    ID,
    NAME,
    PIXELS,
    Records,
    types_of,
)
from gn_det.workbench.inputs.images import MOST_PIXELS

_WANTED = 'expected an object with the lists images, annotations and categories'
# Of all boxes; rounding alone takes fewer beyond their image.
_MANY = 0.1


def check_annotations(
    path: str | Path, kinds: Collection[str] = (), with_truth: bool = True
) -> tuple[dict[str, Any], list[str]]:
    """Read a COCO file and check all of what a loader, metric or evaluator reads.

    Args:
        path: the annotation file.
        kinds: what is loaded or evaluated: masks are looked at where `'segm'` is in it.
        with_truth: whether there are `annotations` as well as `images` and
            `categories`.

    Returns:
        Its content, and in words what is odd in it but legal, each with a count.

    Raises:
        UserError: naming the file, and the first record that is wrong by its index and
            id.
    """
    path = str(path)
    content = _parts(path, with_truth)
    odd: Counter[str] = Counter()
    images = Records(path, 'images', content['images'])
    image_ids = _check_ids(images)
    names = images.column('file_name', NAME)
    odd['images have the file of another'] = len(names) - len(set(names))
    widths, heights = images.column('width', PIXELS), images.column('height', PIXELS)
    for number, (width, height) in enumerate(zip(widths, heights, strict=True)):
        if width * height > MOST_PIXELS:
            images.refuse(
                number,
                f'is of {width} x {height} pixels; at most {MOST_PIXELS} can be read: '
                'cut it into tiles',
            )
    categories = Records(path, 'categories', content['categories'])
    category_ids = _check_ids(categories)
    categories.column('name', NAME)
    if with_truth:
        annotations = Records(path, 'annotations', content['annotations'])
        _check_ids(annotations)
        of_image = _known(annotations, 'image_id', image_ids, 'images')
        of_category = _known(annotations, 'category_id', category_ids, 'categories')
        sizes = np.column_stack([heights, widths])[of_image]
        odd += _check_objects(annotations, sizes, 'segm' in kinds)
        counts = np.bincount(of_category, minlength=len(category_ids))
        empty = len(image_ids) - len(np.unique(of_image))
        odd['images have no annotation'] = empty
    else:
        counts = np.zeros(len(category_ids), int)
    _check_twins(categories, counts)
    return content, [f'{path}: {count} {what}' for what, count in odd.items() if count]


def _parts(path: str, with_truth: bool) -> dict[str, Any]:
    if not os.path.isfile(path):
        raise UserError(f'annotation file not found: {path}')
    if not os.path.getsize(path):
        raise UserError(f'{path} is empty; {_WANTED}')
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(
            f'{path} is not COCO JSON: it holds a {type(content).__name__}; {_WANTED}'
        )
    parts = ['images', 'categories', *(['annotations'] if with_truth else [])]
    missing = [part for part in parts if not isinstance(content.get(part), list)]
    if missing:
        raise UserError(
            f'{path} is not COCO JSON: no list {" or ".join(missing)}; {_WANTED}'
        )
    for part in ('images', 'categories'):
        if not content[part]:
            raise UserError(f'{path} lists no {part}; {_WANTED}')
    return content


def _check_ids(records: Records) -> dict[Hashable, int]:
    """Ids of one kind, each given once, and their places."""
    ids = records.column('id', ID)
    if len(types_of(ids)) > 1:
        raise UserError(
            f'{records.path}: {records.name} have numbers and names as ids; take one'
        )
    places = {ident: number for number, ident in enumerate(ids)}
    if len(places) < len(ids):
        number, ident = _repeated(ids)
        records.refuse(
            number,
            f'has the id of {records.name}[{ids.index(ident)}]; number them anew',
        )
    return places


def _repeated(values: list) -> tuple[int, Any]:
    """The first value that stands there a second time."""
    seen = set()
    for number, value in enumerate(values):
        if value in seen:
            return number, value
        seen.add(value)
    raise ValueError('no value is repeated')


def _known(
    records: Records, field: str, places: dict[Hashable, int], name: str
) -> np.ndarray:
    """(N,) the places of the records that a field of each names."""
    values = records.column(field, ID)
    found = np.array([places.get(value, -1) for value in values], int)
    missing = np.flatnonzero(found < 0)
    if missing.size:
        number = int(missing[0])
        others = f', and {missing.size - 1} more like it' if missing.size > 1 else ''
        records.refuse(
            number,
            f'has the {field} {values[number]!r}, which none of the {name} has'
            f'{others}; remove such records or add what they name',
        )
    return found


def _check_twins(categories: Records, counts: np.ndarray) -> None:
    """Refuse two categories of one name, as exporters write a root and the real one."""
    first: dict[str, int] = {}
    for number, category in enumerate(categories.items):
        twin = first.setdefault(category['name'], number)
        if twin != number:
            idle = number if counts[twin] else twin
            way_out = (
                f'remove categories[{idle}], which no annotation has'
                if not counts[idle]
                else 'make one of the two'
            )
            categories.refuse(
                number,
                f'has the name {category["name"]!r} of categories[{twin}] (id '
                f'{categories.items[twin]["id"]!r}); {way_out}',
            )


def _check_objects(
    annotations: Records, sizes: np.ndarray, with_masks: bool
) -> Counter[str]:
    boxes = np.array(annotations.column('bbox', BOX), float).reshape(-1, 4)
    areas = np.array(annotations.column('area', AREA), float)
    for field in ('iscrowd', 'ignore'):
        annotations.optional(field, FLAG)
    size = sizes[:, ::-1]
    corner, far = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    _refuse_other_units(annotations, boxes, size)
    odd = Counter(
        {
            'boxes are narrower than a pixel; training leaves them out': _count(
                (boxes[:, 2:] < 1).any(axis=1)
            ),
            'boxes lie outside their image; training leaves them out': _count(
                ((far <= 0) | (corner >= size)).any(axis=1)
            ),
            'boxes reach beyond their image by more than a pixel': _count(
                ((corner < -1) | (far > size + 1)).any(axis=1)
            ),
            'areas are 0; training leaves these objects out': _count(areas == 0),
            'areas are larger than their box': _count(
                areas > 1.01 * boxes[:, 2:].prod(axis=1) + 1
            ),
        }
    )
    if with_masks:
        odd.update(check_segmentations(annotations, sizes, boxes))
    return odd


def _refuse_other_units(
    annotations: Records, boxes: np.ndarray, size: np.ndarray
) -> None:
    """Refuse boxes that all look like fractions of the image, or like two corners."""
    if not len(boxes):
        return
    far = boxes[:, :2] + boxes[:, 2:]
    if (boxes <= 1).all() and (size > 2).all():
        annotations.refuse(
            0,
            f'has the bbox {boxes[0].tolist()}, and all {len(boxes)} boxes lie between '
            '0 and 1, as fractions of the image do; expected pixels',
        )
    beyond = (far > size + 2).any(axis=1)
    as_corners = (boxes[:, 2:] >= boxes[:, :2]) & (boxes[:, 2:] <= size + 1)
    if as_corners.all() and beyond.mean() > _MANY:
        number = int(np.flatnonzero(beyond)[0])
        annotations.refuse(
            number,
            f'has the bbox {boxes[number].tolist()}, and {beyond.sum()} of '
            f'{len(boxes)} boxes end beyond their image, as x1, y1, x2, y2 would; '
            'expected x, y, width, height',
        )


def _count(which: np.ndarray) -> int:
    return int(np.count_nonzero(which))

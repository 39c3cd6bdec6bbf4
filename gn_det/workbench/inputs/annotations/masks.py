"""Masks of COCO files: polygons and run lengths, before C code is given them.

pycocotools trusts what it gets: a coordinate of 1e9 ends the process, and run lengths
that do not fill the image leave what was in memory before.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from gn_det.workbench.inputs.annotations.records import (
    Field,
    Records,
    is_number,
    types_of,
)

# In lengths of the image's longer side, from its corner. Cropping moves outlines out of
# an image by less.
_FAR = 10
# Pixels along an outline; pycocotools takes about 100 bytes for each.
_LONGEST_OUTLINE = 10**7
# Masks decoded at once: their counts as 64-bit numbers stay in tens of megabytes.
_CHUNK = 20_000
_CHARACTERS_OF_A_NUMBER = 7

_WANTED = 'polygons of three points or more, or RLE of the size of the image'


def check_segmentations(
    annotations: Records, sizes: np.ndarray, boxes: np.ndarray
) -> dict[str, int]:
    """Check the masks of annotations.

    Args:
        annotations: with a `segmentation` each.
        sizes: (N, 2) height and width of the image of each.
        boxes: (N, 4) x, y, width, height of each.

    Returns:
        What is odd but legal, and how often.

    Raises:
        UserError: naming the first annotation whose mask is not one of its image.
    """
    wanted = Field(_WANTED, _is_outline, _are_outlines)
    for number, record in enumerate(annotations.items):
        if not record.get('segmentation'):
            annotations.refuse(
                number, f'has no segmentation, which masks need; expected {_WANTED}'
            )
    outlines = annotations.column('segmentation', wanted)
    polygons = np.array([type(outline) is list for outline in outlines], bool)
    check_run_lengths(annotations, np.flatnonzero(~polygons), sizes)
    return _check_polygons(annotations, np.flatnonzero(polygons), sizes, boxes)


def check_run_lengths(
    records: Records, indices: Sequence[int], sizes: np.ndarray
) -> None:
    """Check RLE, compressed or not, of some records against the sizes of their images.

    Raises:
        UserError: naming the first whose size is another, or whose runs do not fill it.
    """
    masks = [records.items[i]['segmentation'] for i in indices]
    for i, mask in zip(indices, masks, strict=True):
        if mask['size'] != sizes[i].tolist():
            records.refuse(
                i,
                f'has a mask of the size {mask["size"]} in an image of '
                f'{sizes[i].tolist()} (height, width); expected the size of the image',
            )
    for start in range(0, len(masks), _CHUNK):
        chunk = masks[start : start + _CHUNK]
        wrong = np.flatnonzero(~fills_image(chunk))
        if wrong.size:
            records.refuse(
                indices[start + wrong[0]],
                'has damaged counts in its mask: they do not fill the image; write the '
                'mask again',
            )


def fills_image(masks: Sequence[dict[str, Any]]) -> np.ndarray:
    """(N,) whether the runs of RLE are not negative and add up to the image.

    Compressed counts hold a number in characters of six bits, from '0' on: five bits of
    it, the lowest first, and one that says whether more follow. The sign is the fifth
    bit of the last. From the fourth on, a number is the difference to the last but one.
    """
    right = np.zeros(len(masks), bool)
    areas = np.array([h * w for h, w in (mask['size'] for mask in masks)], object)
    for i, mask in enumerate(masks):
        if type(mask['counts']) is list:
            counts = mask['counts']
            right[i] = min(counts, default=-1) >= 0 and sum(counts) == areas[i]
    packed = [i for i, mask in enumerate(masks) if type(mask['counts']) is str]
    whole = [i for i in packed if _is_packed(masks[i]['counts'])]
    if whole:
        totals, lowest = _unpack([masks[i]['counts'] for i in whole])
        right[whole] = (totals == areas[whole]) & (lowest >= 0)
    return right


def _is_packed(counts: str) -> bool:
    """Whether these are the characters of whole numbers, none of them too long."""
    return (
        counts.isascii()
        and counts != ''
        and min(counts) >= '0'
        and max(counts) <= 'o'
        and counts[-1] < 'P'
    )


def _unpack(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(N,) the sum and the lowest of the run lengths of each text."""
    bits = np.frombuffer(''.join(texts).encode(), np.uint8).astype(np.int64) - 48
    ends = (bits & 32) == 0
    starts = np.flatnonzero(np.r_[True, ends[:-1]])
    lengths = np.diff(np.r_[starts, len(bits)])
    place = np.arange(len(bits)) - np.repeat(starts, lengths)
    # One that is too long is let overflow no further; its text is marked below.
    parts = (bits & 31) << (5 * np.minimum(place, _CHARACTERS_OF_A_NUMBER))
    numbers = np.add.reduceat(parts, starts)
    negative = (bits[starts + lengths - 1] & 16) != 0
    numbers -= negative * (1 << (5 * np.minimum(lengths, _CHARACTERS_OF_A_NUMBER)))
    first_character = np.cumsum([0, *map(len, texts)])[:-1]
    first = np.searchsorted(starts, first_character)
    counts = np.diff(np.r_[first, len(starts)])
    text = np.repeat(np.arange(len(texts)), counts)
    index = np.arange(len(starts)) - first[text]
    # Three chains of differences in a text: the first number, the odd, the even ones.
    chain_of = 3 * text + np.where(index == 0, 0, 2 - index % 2)
    order = np.argsort(chain_of, kind='stable')
    sums = np.cumsum(numbers[order])
    begins = np.flatnonzero(np.r_[True, np.diff(chain_of[order]) != 0])
    before = np.r_[0, sums][begins]
    runs = np.empty_like(numbers)
    runs[order] = sums - np.repeat(before, np.diff(np.r_[begins, len(order)]))
    runs[lengths > _CHARACTERS_OF_A_NUMBER] = -1
    return np.add.reduceat(runs, first), np.minimum.reduceat(runs, first)


def _check_polygons(
    annotations: Records, indices: np.ndarray, sizes: np.ndarray, boxes: np.ndarray
) -> dict[str, int]:
    if not indices.size:
        return {}
    outlines = [annotations.items[i]['segmentation'] for i in indices]
    polygons = list(chain.from_iterable(outlines))
    lengths = np.fromiter(map(len, polygons), np.int64, len(polygons))
    total = int(lengths.sum())
    points = np.fromiter(chain.from_iterable(polygons), np.float64, total)
    points = points.reshape(-1, 2)
    per_outline = np.add.reduceat(lengths, _starts(list(map(len, outlines)))) // 2
    starts = _starts(per_outline)
    low = np.minimum.reduceat(points, starts)
    high = np.maximum.reduceat(points, starts)
    longer = sizes[indices].max(axis=1, keepdims=True)
    far = (low < -_FAR * longer) | (high > (1 + _FAR) * longer)
    if far.any():
        wrong = int(np.flatnonzero(far.any(axis=1))[0])
        corner = low[wrong] if (low[wrong] < 0).any() else high[wrong]
        height, width = sizes[indices[wrong]].tolist()
        annotations.refuse(
            indices[wrong],
            f'has a point of its polygon near {corner.tolist()} in an image of '
            f'{width} x {height}; expected pixels of the image',
        )
    # An upper bound first: the outline itself is measured of few.
    extent = (high - low).max(axis=1)
    for i in np.flatnonzero(extent * per_outline > _LONGEST_OUTLINE):
        own = points[starts[i] : starts[i] + per_outline[i]]
        length = np.abs(np.diff(own, axis=0)).max(axis=1).sum()
        if length > _LONGEST_OUTLINE:
            annotations.refuse(
                indices[i],
                f'has polygons {length:.0f} pixels long; expected the outline of an '
                'object',
            )
    own = boxes[indices]
    apart = (low > own[:, :2] + own[:, 2:] + 1) | (high < own[:, :2] - 1)
    beyond = (low < -1) | (high > sizes[indices][:, ::-1] + 1)
    return {
        'masks lie outside their own box': int(apart.any(axis=1).sum()),
        'polygons reach beyond their image': int(beyond.any(axis=1).sum()),
    }


def _starts(lengths: Sequence[int]) -> np.ndarray:
    return np.cumsum(np.r_[0, lengths])[:-1]


def _is_outline(value: Any) -> bool:
    if type(value) is dict:
        return is_rle(value)
    return type(value) is list and len(value) > 0 and all(map(_is_polygon, value))


def _are_outlines(values: list) -> bool:
    if not types_of(values) <= {list, dict}:
        return False
    if not all(is_rle(value) for value in values if type(value) is dict):
        return False
    outlines = [value for value in values if type(value) is list]
    if not all(outlines):
        return False
    polygons = list(chain.from_iterable(outlines))
    if not types_of(polygons) <= {list}:
        return False
    lengths = set(map(len, polygons))
    if any(length < 6 or length % 2 for length in lengths):
        return False
    if not types_of(chain.from_iterable(polygons)) <= {int, float}:
        return False
    total = sum(map(len, polygons))
    numbers = np.fromiter(chain.from_iterable(polygons), np.float64, total)
    return bool((np.abs(numbers) < 1e15).all())


def _is_polygon(value: Any) -> bool:
    is_points = type(value) is list and len(value) >= 6 and len(value) % 2 == 0
    return is_points and all(map(is_number, value))


def is_rle(value: Any) -> bool:
    """Whether a value has the parts of RLE, compressed or not."""
    if type(value) is not dict:
        return False
    size, counts = value.get('size'), value.get('counts')
    if not (type(size) is list and len(size) == 2 and types_of(size) == {int}):
        return False
    if type(counts) is list:
        return types_of(counts) == {int}
    return type(counts) is str

"""Result files in COCO's format, made by any program, checked before evaluation."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.annotations.masks import check_run_lengths, is_rle
from gn_det.workbench.inputs.annotations.reading import read_json
from gn_det.workbench.inputs.annotations.records import (
    BOX,
    ID,
    NUMBER,
    Field,
    Records,
    types_of,
)

_NAME = 'detections'
_FIELDS = {'bbox': 'bbox', 'segm': 'segmentation'}
_RLE = Field(
    'compressed RLE: an object of size and a text counts',
    lambda value: is_rle(value) and type(value['counts']) is str,
    lambda values: (
        all(map(is_rle, values)) and types_of(v['counts'] for v in values) <= {str}
    ),
)


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """The detections of a result file, which `check_results` has yet to look at.

    Raises:
        UserError: if there is no such file, or it does not hold a list of detections of
            images.
    """
    if not Path(path).is_file():
        raise UserError(f'result file not found: {path}')
    results = read_json(path)
    if not isinstance(results, list):
        raise UserError(
            f'{path} is not a COCO result file: it holds a {type(results).__name__}; '
            'expected a list of detections'
        )
    records = Records(str(path), _NAME, results)
    for field in ('image_id', 'category_id'):
        records.column(field, ID)
    return results


def kinds_of(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The kinds of evaluation that the first detection allows, `'bbox'` if none."""
    first = results[0] if results else {}
    return [kind for kind, field in _FIELDS.items() if field in first] or ['bbox']


def check_results(
    path: str | Path,
    results: Sequence[Mapping[str, Any]],
    truth: Mapping[str, Any],
    kinds: Collection[str],
) -> None:
    """Check that detections can be evaluated against annotations.

    Args:
        path: the file they are of, for messages.
        results: of `read_results`: `image_id`, `category_id`, `score` and `bbox` (x, y,
            width, height) or `segmentation` (compressed RLE), or both.
        truth: of `check_annotations`, for the same kinds.
        kinds: of `'bbox'` and `'segm'`.

    Raises:
        UserError: naming the file, the first wrong detection and what is wrong with it.
    """
    records = Records(str(path), _NAME, results)
    sizes = {
        image['id']: (image['height'], image['width']) for image in truth['images']
    }
    _check_known(records, 'image_id', sizes)
    _check_known(records, 'category_id', {c['id']: None for c in truth['categories']})
    records.column('score', NUMBER)
    if 'bbox' in kinds:
        records.column('bbox', BOX)
    if 'segm' in kinds:
        records.column('segmentation', _RLE)
        of_images = np.array([sizes[result['image_id']] for result in results])
        check_run_lengths(records, range(len(results)), of_images)


def _check_known(records: Records, field: str, known: Mapping[Hashable, Any]) -> None:
    values = records.column(field, ID)
    wrong = [number for number, value in enumerate(values) if value not in known]
    if wrong:
        records.refuse(
            wrong[0],
            f'has the {field} {values[wrong[0]]!r}, which is not in the annotation '
            f'file, as those of {len(wrong)} of {len(values)} detections; give the '
            'annotations of the same set',
        )

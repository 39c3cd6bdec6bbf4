"""Result files in COCO's format, made by any program, checked before evaluation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gn_det.errors import UserError
from gn_det.inputs.data import check_coco_file

_FIELDS = {'bbox': 'bbox', 'segm': 'segmentation'}


def load_truth(path: str | Path, kinds: Sequence[str] = ()) -> dict[str, Any]:
    """The content of an annotation file that results can be evaluated against.

    Args:
        path: COCO JSON with `annotations`.
        kinds: of `'bbox'` and `'segm'`; what they need must be in every annotation.

    Raises:
        UserError: naming the file and the first annotation that lacks something.
    """
    if not Path(path).is_file():
        raise UserError(f'annotation file not found: {path}')
    truth = check_coco_file(path) or _read(path)
    fields = ['image_id', 'category_id', 'area', *(_FIELDS[kind] for kind in kinds)]
    for number, annotation in enumerate(truth['annotations']):
        for field in fields:
            if field not in annotation:
                raise UserError(f'{path}: annotations[{number}] has no {field}')
    return truth


def load_results(
    path: str | Path, truth: dict[str, Any], kinds: Sequence[str] | None = None
) -> tuple[list[dict[str, Any]], list[str]]:
    """The detections of a result file, and which kinds of evaluation they allow.

    Args:
        path: a JSON list of `image_id`, `category_id`, `score` and `bbox` (x, y, width,
            height) or `segmentation` (compressed RLE), or both.
        truth: content of the annotation file.
        kinds: of `'bbox'` and `'segm'`; default what the first detection has.

    Raises:
        UserError: naming the file, the first wrong detection and what is wrong with it.
    """
    if not Path(path).is_file():
        raise UserError(f'result file not found: {path}')
    results = _read(path)
    if not isinstance(results, list):
        raise UserError(
            f'{path} is not a COCO result file: it holds a {type(results).__name__}; '
            'expected a list of detections'
        )
    first = results[0] if results and isinstance(results[0], dict) else {}
    found = [kind for kind, field in _FIELDS.items() if field in first]
    chosen = list(kinds) if kinds else found or ['bbox']
    _check_ids(path, results, 'image_id', {i['id'] for i in truth['images']})
    _check_ids(path, results, 'category_id', {c['id'] for c in truth['categories']})
    _check_each(path, results, 'score', _is_number, 'a number')
    if 'bbox' in chosen:
        wanted = 'four numbers: x, y, width, height'
        _check_each(path, results, 'bbox', _is_box, wanted)
    if 'segm' in chosen:
        sizes = {i['id']: [i['height'], i['width']] for i in truth['images']}
        _check_masks(path, results, sizes)
    return results, chosen


def _read(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding='utf-8'))
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f'{path} is not JSON ({error})') from error


def _check_ids(path: str | Path, results: list, field: str, known: set) -> None:
    _check_each(path, results, field, _is_id, 'a number or a name')
    wrong = [n for n, result in enumerate(results) if result[field] not in known]
    if wrong:
        raise UserError(
            f'{path}: {field} of {len(wrong)} of {len(results)} detections is not in '
            f'the annotation file, first {results[wrong[0]][field]!r} of detection '
            f'[{wrong[0]}]; give the annotations of the same set'
        )


def _check_each(
    path: str | Path,
    results: list,
    field: str,
    is_right: Callable[[Any], bool],
    wanted: str,
) -> None:
    for number, result in enumerate(results):
        if not isinstance(result, dict) or field not in result:
            raise UserError(f'{path}: detection [{number}] has no {field}')
        if not is_right(result[field]):
            raise UserError(
                f'{path}: {field} of detection [{number}] is '
                f'{str(result[field])[:40]}; expected {wanted}'
            )


def _check_masks(path: str | Path, results: list, sizes: dict[Any, list]) -> None:
    wanted = 'compressed RLE: a dict of size and a string counts'
    _check_each(path, results, 'segmentation', _is_rle, wanted)
    for number, result in enumerate(results):
        size, image = list(result['segmentation']['size']), result['image_id']
        if size != sizes[image]:
            raise UserError(
                f'{path}: the mask of detection [{number}] is of size {size}, image '
                f'{image} of {sizes[image]}; expected the size of the image'
            )


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


def _is_rle(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get('counts'), str)
        and isinstance(value.get('size'), list)
    )

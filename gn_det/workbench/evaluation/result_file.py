"""Result files in COCO's format, made by any program, checked before evaluation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from faster_coco_eval.core import mask as coco_mask

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.data import read_coco_file

_DETECTION = 'detection '
_FIELDS = {'bbox': 'bbox', 'segm': 'segmentation'}
_WANTED = {
    'id': 'a whole number or a name',
    'score': 'a number',
    'bbox': 'four numbers: x, y, width, height',
    'segmentation': 'compressed RLE: a dict of size and a string counts',
    'area': 'a number',
    'outline': 'polygons of three points or more, or RLE of the size of the image',
}


def load_truth(path: str | Path, kinds: Collection[str] = ()) -> dict[str, Any]:
    """The content of an annotation file that results can be evaluated against.

    Args:
        path: COCO JSON with `annotations`.
        kinds: of `'bbox'` and `'segm'`; what they need must be in every annotation.

    Raises:
        UserError: naming the file and the first record that lacks something.
    """
    if not Path(path).is_file():
        raise UserError(f'annotation file not found: {path}')
    truth = read_coco_file(path)
    for part in ('images', 'categories'):
        _check_each(path, part, truth[part], 'id', _is_id, _WANTED['id'])
        if len({type(record['id']) for record in truth[part]}) > 1:
            raise UserError(f'{path}: {part} have numbers and names as ids; take one')
    annotations, name = truth['annotations'], 'annotations'
    for field in ('image_id', 'category_id'):
        _check_each(path, name, annotations, field, _is_id, _WANTED['id'])
    _check_each(path, name, annotations, 'area', _is_number, _WANTED['area'])
    for kind in kinds:
        _check_kind(path, annotations, kind)
    if 'bbox' in kinds:
        _check_each(path, name, annotations, 'bbox', _is_box, _WANTED['bbox'])
    if 'segm' in kinds:
        for side in ('height', 'width'):
            _check_each(path, 'images', truth['images'], side, _is_count, 'pixels')
        _check_each(
            path, name, annotations, 'segmentation', _is_outline, _WANTED['outline']
        )
        _check_sizes(path, name, annotations, _sizes(truth))
    return truth


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """The detections of a result file, which `check_results` has yet to look at.

    Raises:
        UserError: if there is no such file, or it does not hold a list of detections of
            images.
    """
    if not Path(path).is_file():
        raise UserError(f'result file not found: {path}')
    try:
        results = json.loads(Path(path).read_text(encoding='utf-8'))
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f'{path} is not JSON ({error})') from error
    if not isinstance(results, list):
        raise UserError(
            f'{path} is not a COCO result file: it holds a {type(results).__name__}; '
            'expected a list of detections'
        )
    for field in ('image_id', 'category_id'):
        _check_each(path, _DETECTION, results, field, _is_id, _WANTED['id'])
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
        truth: of `load_truth`, for the same kinds.
        kinds: of `'bbox'` and `'segm'`.

    Raises:
        UserError: naming the file, the first wrong detection and what is wrong with it.
    """
    _check_known(path, results, 'image_id', {i['id'] for i in truth['images']})
    _check_known(path, results, 'category_id', {c['id'] for c in truth['categories']})
    _check_each(path, _DETECTION, results, 'score', _is_number, _WANTED['score'])
    if 'bbox' in kinds:
        _check_each(path, _DETECTION, results, 'bbox', _is_box, _WANTED['bbox'])
    if 'segm' in kinds:
        wanted = _WANTED['segmentation']
        _check_each(path, _DETECTION, results, 'segmentation', _is_compressed, wanted)
        _check_sizes(path, _DETECTION, results, _sizes(truth))
        _check_run_lengths(path, results)


def _check_kind(path: str | Path, annotations: Sequence[Mapping], kind: str) -> None:
    """Results may have what the truth lacks: they can be evaluated without it."""
    for number, annotation in enumerate(annotations):
        if _FIELDS[kind] not in annotation:
            other = next(name for name in _FIELDS if name != kind)
            raise UserError(
                f'{path}: annotations[{number}] has no {_FIELDS[kind]}; --iou-type '
                f'{other} does not need it'
            )


def _check_known(
    path: str | Path, results: Sequence[Mapping], field: str, known: set
) -> None:
    wrong = [n for n, result in enumerate(results) if result[field] not in known]
    if wrong:
        raise UserError(
            f'{path}: {field} of {len(wrong)} of {len(results)} detections is not in '
            f'the annotation file, first {results[wrong[0]][field]!r} of detection '
            f'[{wrong[0]}]; give the annotations of the same set'
        )


def _check_each(
    path: str | Path,
    name: str,
    records: Sequence[Any],
    field: str,
    is_right: Callable[[Any], bool],
    wanted: str,
) -> None:
    for number, record in enumerate(records):
        if not isinstance(record, dict) or field not in record:
            raise UserError(f'{path}: {name}[{number}] has no {field}')
        if not is_right(record[field]):
            raise UserError(
                f'{path}: {field} of {name}[{number}] is '
                f'{str(record[field])[:40]}; expected {wanted}'
            )


def _check_sizes(
    path: str | Path, name: str, records: Sequence[Mapping], sizes: Mapping[Any, list]
) -> None:
    """The masks must be of the size of their images; others are of no image here."""
    for number, record in enumerate(records):
        segmentation, image = record['segmentation'], record['image_id']
        if not isinstance(segmentation, dict) or image not in sizes:
            continue
        if list(segmentation['size']) != sizes[image]:
            raise UserError(
                f'{path}: the mask of {name}[{number}] is of size '
                f'{segmentation["size"]}, image {image} of {sizes[image]}; expected '
                'the size of the image'
            )


def _check_run_lengths(path: str | Path, results: Sequence[Mapping]) -> None:
    try:
        coco_mask.area([result['segmentation'] for result in results])
    except (RuntimeError, ValueError) as error:
        number = next(n for n, r in enumerate(results) if not _decodes(r))
        raise UserError(
            f'{path}: counts of {_DETECTION}[{number}] are damaged: {error}'
        ) from error


def _decodes(result: Mapping[str, Any]) -> bool:
    try:
        coco_mask.area([result['segmentation']])
    except (RuntimeError, ValueError):
        return False
    return True


def _sizes(truth: Mapping[str, Any]) -> dict[Any, list]:
    return {i['id']: [i['height'], i['width']] for i in truth['images']}


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value > 0


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


def _is_rle(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get('size'), list)


def _is_compressed(value: Any) -> bool:
    return _is_rle(value) and isinstance(value.get('counts'), str)


def _is_outline(value: Any) -> bool:
    if _is_rle(value):
        return isinstance(value.get('counts'), str | list)
    if not isinstance(value, list) or not value:
        return False
    # pycocotools would take a first one of four numbers for a box.
    return all(map(_is_polygon, value)) and len(value[0]) >= 6


def _is_polygon(value: Any) -> bool:
    is_points = isinstance(value, list) and len(value) >= 2 and len(value) % 2 == 0
    return is_points and all(map(_is_number, value))

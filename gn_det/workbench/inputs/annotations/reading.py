"""A COCO file parsed once: by the check, which hands it on to what reads it next."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation.metrics import coco_metric

from gn_det.workbench.errors import UserError

# By path: state of the file, content, and how many are still to take it.
_at_hand: dict[str, tuple[tuple[int, ...], Any, int]] = {}


def read_json(path: str | Path) -> Any:
    """The content of a JSON file, from what is at hand or parsed.

    Raises:
        UserError: if it cannot be read or is not JSON.
    """
    known = _at_hand.get(os.path.realpath(path))
    if known is not None and known[0] == _state(path):
        return known[1]
    try:
        with _no_collections():
            return _parsed(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        reason = str(error) or 'nested too deeply'
        raise UserError(f'{path} is not JSON ({reason}); export it again') from error


def _parsed(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    # Python's parser takes NaN, which a field that is read names by its record.
    except msgspec.DecodeError:
        return json.loads(text)


def hand_on(path: str | Path, content: Any, takers: int) -> None:
    """Keep the content of a file until mmdet has loaded it as often as it will."""
    if takers:
        _at_hand[os.path.realpath(path)] = (_state(path), content, takers)


class SharedCOCO(COCO):
    """mmdet's index of a COCO file, made of what the check has parsed."""

    def __init__(self, annotation_file: str | None = None) -> None:
        super().__init__()
        if annotation_file is None:
            return
        self.dataset = _take(annotation_file)
        # pycocotools tells its progress on stdout.
        with contextlib.redirect_stdout(io.StringIO()), _no_collections():
            self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs


def share_with_mmdet() -> None:
    """Let mmdet's COCO datasets and metrics load files through `SharedCOCO`."""
    CocoDataset.COCOAPI = SharedCOCO
    coco_metric.COCO = SharedCOCO


def _take(path: str) -> Any:
    content = read_json(path)
    key = os.path.realpath(path)
    if key in _at_hand:
        state, _, takers = _at_hand[key]
        _at_hand[key] = (state, content, takers - 1)
        if takers <= 1:
            del _at_hand[key]
    return content


def _state(path: str | Path) -> tuple[int, ...]:
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """Millions of new objects, none of them garbage, would be looked through again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

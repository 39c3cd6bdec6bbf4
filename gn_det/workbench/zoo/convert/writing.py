"""Writing converted weights: the whole file under its name, or none."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gn_det.workbench.atomic_files import replacing
from gn_det.workbench.errors import UserError
from gn_det.workbench.zoo.publish import serialize

_SUFFIXES = ('.pth', '.pt', '.safetensors')


def check_target(source: str | Path, target: str | Path) -> None:
    """See that a file may be written, before anything is read.

    Raises:
        UserError: if the name has no suffix of a checkpoint, is a folder, or is the
            source.
    """
    source, target = Path(source), Path(target)
    if target.suffix not in _SUFFIXES:
        raise UserError(f'{target}: expected a name ending in {" or ".join(_SUFFIXES)}')
    if target.is_dir():
        raise UserError(f'{target} is a folder; add a file name to it')
    if target.exists() and source.exists() and target.samefile(source):
        raise UserError(f'{target} is the source itself; give another name')


def write_checkpoint(
    target: str | Path, state: dict[str, Tensor], meta: dict[str, Any]
) -> None:
    """Write weights and meta, as safetensors or by torch as the suffix says.

    Raises:
        UserError: if the file cannot be written, or cannot carry this meta.
    """
    as_safetensors = Path(target).suffix == '.safetensors'
    try:
        content = serialize(state, meta, as_safetensors)
    except UserError as error:
        way_out = '; end the name in .pth' if as_safetensors else ''
        raise UserError(f'{target}: the source {error}{way_out}') from error
    _put(target, content)


def write_torch(target: str | Path, content: dict[str, Any]) -> None:
    """Write a dict by `torch.save`."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    _put(target, buffer.getbuffer())


def _put(target: str | Path, content: bytes | memoryview) -> None:
    try:
        with replacing(target) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise UserError(f'cannot write {target}: {error.strerror or error}') from error

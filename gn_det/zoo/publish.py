"""A training checkpoint made fit to be given away: weights and what inference needs."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gn_det.errors import UserError
from gn_det.zoo.digests import file_digest
from gn_det.zoo.loading import load_file

_SUFFIXES = ('.pth', '.pt', '.safetensors')
# What the meta of a run says about the run, its hooks and its machine.
_RUN_META = (
    'env_info',
    'exp_name',
    'experiment_name',
    'hook_msgs',
    'seed',
    'time',
)


def publish(
    source: str | Path,
    prefix: str | Path,
    *,
    safetensors: bool = False,
    trust: bool = False,
) -> tuple[Path, list[str]]:
    """Write the weights of a checkpoint to `PREFIX-<sha256[:8]>.pth`.

    Kept are the weights and the meta (classes, config, what a conversion noted);
    optimizer, schedules, message hub, the training copy that an EMA hook keeps, and
    meta about the run itself are left out. `state_dict` is what mmengine evaluates:
    with an EMA hook the averaged weights. The same weights and meta give the same file.

    Args:
        source: a checkpoint of mmengine's Runner or any file of weights.
        prefix: folder and start of the name; a suffix such as `.pth` is dropped.
        safetensors: write `.safetensors`, with the meta as JSON in its header.
        trust: read `source` with full rights; for files of your own.

    Returns:
        The path of the file, and what was left out.

    Raises:
        UserError: if the source is no checkpoint, holds something other than tensors
            and plain values, or the file cannot be written; a file of that name with
            other content is never overwritten.
    """
    state, meta, dropped = _split(load_file(source, trust=trust), source)
    content = serialize(_detached(state), meta, safetensors)
    suffix = '.safetensors' if safetensors else '.pth'
    prefix = Path(prefix)
    if prefix.suffix in _SUFFIXES:
        prefix = prefix.with_suffix('')
    if prefix.is_dir():
        raise UserError(f'{prefix} is a folder; add the start of a file name to it')
    partial = prefix.with_name(f'{prefix.name}{suffix}.partial-{os.getpid()}')
    try:
        prefix.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write(partial, content)
            digest = file_digest(partial)
            target = prefix.with_name(f'{prefix.name}-{digest[:8]}{suffix}')
            if target.exists() and file_digest(target) != digest:
                raise UserError(f'{target} is another file; it was left as it is')
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f'cannot write {prefix}-*{suffix}: {error.strerror or error}'
        ) from error
    return target, dropped


def _split(
    content: Any, source: str | Path
) -> tuple[Mapping[str, torch.Tensor], dict, list[str]]:
    """Weights, meta, and the names of what is left out."""
    if not isinstance(content, Mapping):
        raise UserError(f'{source} holds a {type(content).__name__}, not a checkpoint')
    wrapped = 'state_dict' in content
    state = content['state_dict'] if wrapped else content
    if not isinstance(state, Mapping) or not state:
        raise UserError(f'{source} holds no state_dict of tensors')
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise UserError(
                f'{source} holds no state_dict of tensors: {name} is a '
                f'{type(value).__name__}'
            )
    given = (content.get('meta') or {}) if wrapped else {}
    meta = {k: _plain(v, f'meta.{k}') for k, v in given.items() if k not in _RUN_META}
    dropped = [k for k in content if k not in ('state_dict', 'meta')] if wrapped else []
    return state, meta, [*dropped, *(f'meta.{k}' for k in given if k in _RUN_META)]


def _plain(value: Any, place: str) -> Any:
    """The same value in types that every loader knows."""
    if value is None or isinstance(value, (bool, int, float, str)):
        # Subclasses, such as an enum's, would ask for their class.
        for kind in (bool, int, float, str):
            if isinstance(value, kind):
                return kind(value)
        return None
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return value.tolist()
    if isinstance(value, Mapping):
        return {_plain(k, place): _plain(v, f'{place}.{k}') for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_plain(item, place) for item in value]
        return items if isinstance(value, list) else tuple(items)
    raise UserError(
        f'{place} is a {type(value).__name__}, which is not published; take it out of '
        'the checkpoint or make it a plain value'
    )


def _detached(state: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """The weights on the CPU, each with no more storage than its own."""
    tensors = type(state)(
        (name, tensor.detach().cpu().contiguous().clone())
        for name, tensor in state.items()
    )
    if hasattr(state, '_metadata'):
        tensors._metadata = state._metadata
    return tensors


def serialize(
    state: Mapping[str, torch.Tensor], meta: dict, safetensors: bool
) -> bytes:
    """A file of weights and meta; the same content gives the same bytes."""
    if safetensors:
        from safetensors.torch import save

        # One entry only: the library writes several in an order that changes.
        return save(dict(state), {'meta': json.dumps(meta, sort_keys=True)})
    # Not to a path: torch writes its name into the archive, which would put the
    # temporary name under the hash.
    buffer = io.BytesIO()
    torch.save({'meta': meta, 'state_dict': state}, buffer)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    with open(path, 'wb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())

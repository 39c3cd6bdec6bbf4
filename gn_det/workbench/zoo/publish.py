"""A training checkpoint made fit to be given away: weights and what inference needs."""

from __future__ import annotations

import io
import json
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gn_det.workbench.atomic_files import finish, partial_file, replacing
from gn_det.workbench.errors import UserError
from gn_det.workbench.loading.digests import file_digest
from gn_det.workbench.loading.files import load_file
from gn_det.workbench.loading.integrity import sealed
from gn_det.workbench.loading.system_errors import name_refused_files
from gn_det.workbench.loading.weights import (
    check_values,
    check_weight,
    meta_of,
    plain_names,
)

_SUFFIXES = ('.pth', '.pt', '.safetensors')
# A meta has some thousands: classes, colours, settings.
_MOST_META_VALUES = 10**6
# What the meta of a run says about the run, its hooks and its machine.
_RUN_META = (
    'env_info',
    'exp_name',
    'experiment_name',
    'hook_msgs',
    'seed',
    'time',
)


@name_refused_files
def publish(
    source: str | Path,
    prefix: str | Path,
    *,
    safetensors: bool = False,
    trust: bool = False,
) -> tuple[Path, list[str]]:
    """Write the weights of a checkpoint to `PREFIX-<sha256[:8]>.pth`.

    The whole sha256 is written beside it, as `sha256sum -c` reads it, and into the
    metadata of safetensors (see `integrity.sealed`); loading checks what it finds.

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
    suffix = '.safetensors' if safetensors else '.pth'
    is_folder = os.fspath(prefix).endswith(os.sep)
    prefix = Path(prefix)
    if prefix.suffix.lower() in _SUFFIXES:
        prefix = prefix.with_suffix('')
    if is_folder or prefix.is_dir():
        raise UserError(f'{prefix} is a folder; add the start of a file name to it')
    loaded = load_file(source, trust=trust)
    try:
        state, meta, dropped = _split(loaded)
        content = serialize(_detached(state), meta, safetensors)
    except UserError as error:
        raise UserError(f'{source} {error}') from error
    try:
        prefix.parent.mkdir(parents=True, exist_ok=True)
        with partial_file(prefix.with_name(f'{prefix.name}{suffix}')) as partial:
            partial.write_bytes(content)
            digest = file_digest(partial)
            target = prefix.with_name(f'{prefix.name}-{digest[:8]}{suffix}')
            if target.exists() and file_digest(target) != digest:
                raise UserError(f'{target} is another file; it was left as it is')
            finish(partial, target)
        with replacing(target.with_name(f'{target.name}.sha256')) as beside:
            beside.write_text(f'{digest}  {target.name}\n', encoding='utf-8')
    except OSError as error:
        raise UserError(
            f'cannot write {prefix}-*{suffix}: {error.strerror or error}'
        ) from error
    return target, dropped


def _split(content: Any) -> tuple[Mapping[str, torch.Tensor], dict, list[str]]:
    """Weights, meta, and the names of what is left out."""
    if not isinstance(content, Mapping):
        raise UserError(f'holds a {type(content).__name__}, not a checkpoint')
    wrapped = 'state_dict' in content
    state = content['state_dict'] if wrapped else content
    if not isinstance(state, Mapping) or not state:
        raise UserError('holds no state_dict of tensors')
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise UserError(
                f'holds no state_dict of tensors: {name} is a {type(value).__name__}'
            )
        if not isinstance(name, str):
            raise UserError(f'holds no state_dict: the name {name!r} is no text')
        check_weight(value, name)
    check_values(state)
    state = plain_names(state)
    given = meta_of(content)
    meta = _plain_meta({k: v for k, v in given.items() if k not in _RUN_META})
    dropped = [k for k in content if k not in ('state_dict', 'meta')] if wrapped else []
    return state, meta, [*dropped, *(f'meta.{k}' for k in given if k in _RUN_META)]


def _plain_meta(meta: dict) -> dict:
    """The same meta in types that every loader knows.

    A value that a file refers to many times is written as many times, so they are
    counted.
    """
    left = _MOST_META_VALUES

    def plain(value: Any, place: str) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise UserError(f'holds more than {_MOST_META_VALUES} values in its meta')
        if value is None or isinstance(value, (bool, int, float, str)):
            # Subclasses, such as an enum's, would ask for their class.
            for kind in (bool, int, float):
                if isinstance(value, kind):
                    return kind(value)
            # An enum's own `__str__` gives the name of the member.
            return None if value is None else str.__str__(value)
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, (np.ndarray, torch.Tensor)):
            if isinstance(value, torch.Tensor):
                check_weight(value, place)
                check_values({place: value})
            return value.tolist()
        if isinstance(value, Mapping):
            return {plain(k, place): plain(v, f'{place}.{k}') for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            items = [plain(item, place) for item in value]
            return items if isinstance(value, list) else tuple(items)
        raise UserError(
            f'holds more than plain values: {place} is a {type(value).__name__}, which '
            'is not published; take it out of the checkpoint or make it a plain value'
        )

    try:
        return plain(meta, 'meta')
    except RecursionError as error:
        raise UserError('holds a meta that is nested too deeply') from error


def _detached(state: Mapping[str, torch.Tensor]) -> OrderedDict[str, torch.Tensor]:
    """The weights on the CPU, each with no more storage than its own."""
    tensors = OrderedDict(
        (name, tensor.detach().cpu().contiguous().clone())
        for name, tensor in state.items()
    )
    if hasattr(state, '_metadata'):
        tensors._metadata = state._metadata
    return tensors


def serialize(
    state: Mapping[str, torch.Tensor], meta: dict, safetensors: bool
) -> bytes:
    """A file of weights and meta; the same content gives the same bytes.

    Raises:
        UserError: if the file cannot carry the meta, or a kind of number.
    """
    if safetensors:
        from safetensors.torch import save

        header = {'meta': _as_json(meta)}
        try:
            return sealed(save(dict(state)), header)
        # The library looks a dtype up in a table of its own.
        except KeyError as error:
            dtype = error.args[0]
            name = next((k for k, tensor in state.items() if tensor.dtype == dtype), '')
            raise UserError(
                f'holds {str(dtype).removeprefix("torch.")} under {name}, which '
                'safetensors cannot carry'
            ) from error
    # Not to a path: torch writes its name into the archive, which would put the
    # temporary name under the hash.
    buffer = io.BytesIO()
    try:
        torch.save({'meta': meta, 'state_dict': state}, buffer)
    except RecursionError as error:
        raise UserError('holds a meta that is nested too deeply') from error
    return buffer.getvalue()


def _as_json(meta: dict) -> str:
    try:
        return json.dumps(meta, sort_keys=True)
    # Values of other types, keys that cannot be sorted, a list that holds itself.
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(
            'holds more than plain values in its meta, which safetensors cannot carry '
            f'({error})'
        ) from error

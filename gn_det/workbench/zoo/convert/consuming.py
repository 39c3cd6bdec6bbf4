"""Taking tensors out of a file by name, each exactly once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.checkpoints import counted
from gn_det.workbench.loading.weights import check_weight
from gn_det.workbench.zoo.convert.layout import Shapes

Rename = Callable[[str], str]


def consume(
    source: Mapping[str, Any],
    wanted: Shapes,
    rename: Rename,
    *,
    skipped: Mapping[str, str] | None = None,
    change: Callable[[str, Tensor], Tensor] | None = None,
    what: str = 'the model',
) -> tuple[dict[str, Tensor], Counter[str]]:
    """The tensors `wanted`, and how many of the others were skipped for which reason.

    Args:
        source: what the file holds, arrays or tensors.
        wanted: names and shapes of the result.
        rename: from a name of the result to the name in the file.
        skipped: patterns of names that may be left over, with the reason.
        change: applied to (name of the result, tensor) before its shape is checked.
        what: the model, for messages.

    Raises:
        UserError: naming what is missing, of another shape, or left over, all of it
            counted and the first few by name.
    """
    left = dict(source)
    found: dict[str, Tensor] = {}
    missing, reshaped = [], []
    for target, shape in wanted.items():
        name = rename(target)
        if name not in left:
            missing.append(name)
            continue
        value = as_tensor(left.pop(name), name)
        changed = change(target, value) if change else value
        if changed.shape != shape:
            reshaped.append(
                f'{name} {tuple(value.shape)}, from which {target} {shape} '
                'cannot be made'
            )
        # A view would drag the rows it leaves out into the file that is written.
        found[target] = changed.clone(memory_format=torch.contiguous_format)
    counts: Counter[str] = Counter()
    left_over = []
    for name in left:
        reason = _reason(name, skipped or {})
        if reason is None:
            left_over.append(name)
        else:
            counts[reason] += 1
    problems = counted(
        {'missing': missing, 'of another shape': reshaped, 'left over': left_over}
    )
    if problems:
        raise UserError(f'does not hold {what}: {problems}')
    return found, counts


def as_tensor(value: Any, name: str) -> Tensor:
    """A tensor of its own memory.

    Raises:
        UserError: if the value is no array of numbers, or one that cannot be copied.
    """
    if isinstance(value, Tensor):
        check_weight(value, name)
        return value.detach()
    if isinstance(value, np.ndarray) and value.dtype.kind in 'biuf':
        # Of the machine's byte order, which torch wants.
        return torch.from_numpy(value.astype(value.dtype.newbyteorder('=')))
    raise UserError(f'holds a {type(value).__name__} under {name}, not a tensor')


def shape_lookup(
    source: Mapping[str, Any], rename: Rename
) -> Callable[[str], tuple[int, ...] | None]:
    """The shape in the file of a weight given by its name in the result."""

    def shape_of(target: str) -> tuple[int, ...] | None:
        shape = getattr(source.get(rename(target)), 'shape', None)
        return None if shape is None else tuple(shape)

    return shape_of


def _reason(name: str, skipped: Mapping[str, str]) -> str | None:
    for pattern, reason in skipped.items():
        if re.fullmatch(pattern, name):
            return reason
    return None

"""Weights of a Batch Norm model as a start for the same model with Group Norm."""

from __future__ import annotations

from collections import Counter

from torch import Tensor

from gn_det.layers.naming import group_norm_name
from gn_det.workbench.errors import UserError

_STATISTICS = ('running_mean', 'running_var', 'num_batches_tracked')


def to_group_norm(
    state: dict[str, Tensor], num_groups: int = 32
) -> tuple[dict[str, Tensor], Counter[str]]:
    """Weights and biases of every Batch Norm under the names of a Group Norm.

    A norm is told by its running statistics. `bnN` becomes `gnN` and `bn` becomes `gn`,
    as mmcv abbreviates them; a norm of any other name keeps it. That is what
    `gn_det.convert_norm` does to a model.

    Args:
        state: weights of a model.
        num_groups: which has to divide the channels of every norm.

    Returns:
        The weights, and how many entries were left out for which reason.

    Raises:
        UserError: if `num_groups` does not divide the channels of a norm, if there is
            no Batch Norm, or if two weights get one name.
    """
    norms = {
        name.rpartition('.')[0] for name in state if name.endswith('.running_mean')
    }
    if 'running_mean' in state or not norms:
        raise UserError('holds no Batch Norm (no running_mean); leave --norm out')
    renamed: dict[str, Tensor] = {}
    skipped: Counter[str] = Counter()
    for name, value in state.items():
        layer, _, parameter = name.rpartition('.')
        if layer not in norms:
            new = name
        elif parameter in _STATISTICS:
            skipped['running statistics of Batch Norm'] += 1
            continue
        else:
            if value.numel() % num_groups:
                raise UserError(
                    f'{name} has {value.numel()} channels, which {num_groups} groups '
                    'do not divide; give another --num-groups'
                )
            new = f'{group_norm_name(layer)}.{parameter}'
        if new in renamed:
            raise UserError(f'two weights would be called {new}')
        renamed[new] = value
    return renamed, skipped

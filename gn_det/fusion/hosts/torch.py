"""torch's own container."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from gn_det.fusion.calls import kind_of
from gn_det.fusion.core import FusedModule, register
from gn_det.fusion.waiting import FusedPassing, call, now


@register('torch.nn.modules.container.Sequential', code=['1f51ddc5251c'])
class FusedSequential(FusedModule):
    """A Sequential in which an activation stands right behind a norm."""

    @staticmethod
    def fused_norms(module):
        return norms_in(module)

    @staticmethod
    def last(module):
        return module[-1] if len(module) else None

    def waiting(self, x):
        return run_through(self, x)

    def forward(self, x):
        return now(run_through(self, x))


for _name, _code in (('Dropout', '0719ead13000'), ('Dropout2d', '374cb5388f45')):
    register(f'torch.nn.modules.dropout.{_name}', code=[_code])(FusedPassing)


def norms_in(layers: Iterable[nn.Module]) -> Iterator[tuple[nn.Module, str]]:
    """The norms of layers that are called one after the other."""
    for norm, behind in itertools.pairwise([*layers, None]):
        if isinstance(norm, nn.GroupNorm):
            yield norm, kind_of(behind)


def run_through(layers: Iterable[nn.Module], x: Any) -> Any:
    """Call layers one after the other; a norm at the end waits."""
    for layer in layers:
        x = call(layer, x)
    return x

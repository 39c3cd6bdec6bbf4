"""torch's own container."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from gn_det.fusion.calls import ACTIVATIONS, is_bare, kind_of, norm_act, takes_in
from gn_det.fusion.core import FusedModule, register


@register('torch.nn.modules.container.Sequential', code=['1f51ddc5251c'])
class FusedSequential(FusedModule):
    """A Sequential in which an activation stands right behind a norm."""

    @staticmethod
    def fused_norms(module):
        return norms_in(module)

    @staticmethod
    def ending_norm(module):
        last = module[-1] if len(module) else None
        if isinstance(last, nn.GroupNorm):
            return last
        known = (nn.Sequential.forward, FusedSequential.forward)
        nested = isinstance(last, nn.Sequential) and type(last).forward in known
        return FusedSequential.ending_norm(last) if nested and is_bare(last) else None

    def up_to_norm(self, x):
        return _up_to_norm(self, x)

    def forward(self, x):
        return run_through(self, x)


def norms_in(layers: Iterable[nn.Module]) -> Iterator[tuple[nn.Module, str]]:
    """The norms of layers that are called one after the other."""
    for norm, behind in itertools.pairwise([*layers, None]):
        if isinstance(norm, nn.GroupNorm):
            yield norm, kind_of(behind)


def run_through(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    """Call layers one after the other, a norm with the activation behind it."""
    pending = None
    for layer in layers:
        if pending is not None:
            norm, pending = pending, None
            if type(layer) in ACTIVATIONS:
                x = norm_act(norm, layer, x)
                continue
            x = norm(x)
        if takes_in(layer):
            pending = layer
        else:
            x = layer(x)
    return x if pending is None else pending(x)


def _up_to_norm(layers: nn.Sequential, x: Tensor) -> Tensor:
    *first, last = layers
    x = run_through(first, x)
    return x if isinstance(last, nn.GroupNorm) else _up_to_norm(last, x)

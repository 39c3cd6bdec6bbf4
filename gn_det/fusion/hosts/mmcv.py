"""mmcv's ConvModule, which most necks and heads are made of, and its FLOPs counter."""

from __future__ import annotations

import functools
import sys
from types import ModuleType

import torch
from torch import Tensor, nn

from gn_det.fusion.calls import is_bare, kind_of, norm_act, norm_add
from gn_det.fusion.core import FusedModule, register
from gn_det.layers import FUSED_NORMS


@register('mmcv.cnn.bricks.conv_module.ConvModule', code=['62c4dedf694a'])
class FusedConvModule(FusedModule):
    """Convolution → norm → activation."""

    @staticmethod
    def fused_norms(module):
        if not module.with_norm:
            return
        if tuple(module.order) != ('conv', 'norm', 'act'):
            yield (
                module.norm,
                f'the order of the ConvModule is {"-".join(module.order)}',
            )
        else:
            yield (
                module.norm,
                kind_of(module.activate if module.with_activation else None),
            )

    @staticmethod
    def ending_norm(module):
        plain = tuple(module.order) == ('conv', 'norm', 'act')
        ends = plain and module.with_norm and not module.with_activation
        return module.norm if ends else None

    def up_to_norm(self, x):
        return super().forward(x, activate=False, norm=False)

    def forward(self, x, activate=True, norm=True):
        if not norm or not activate or not self.with_activation:
            return super().forward(x, activate, norm)
        return norm_act(self.norm, self.activate, self.up_to_norm(x))


class Waiting:
    """A norm's output that waits for what is added to it.

    For forwards that ask it for nothing but its shape and a sum.
    """

    def __init__(self, norm: nn.Module, x: Tensor) -> None:
        self.norm = norm
        self.x = x

    @property
    def shape(self) -> torch.Size:
        """That of the output."""
        return self.x.shape

    def __add__(self, residual: Tensor) -> Tensor:
        return norm_add(self.norm, self.x, residual)

    __radd__ = __add__


class WaitingConvModule(FusedConvModule):
    """Convolution → norm, of which a known forward makes a sum."""

    def forward(self, x, activate=True, norm=True):
        # Hooks are given the map itself.
        if not norm or not is_bare(self):
            return super().forward(x, activate, norm)
        return Waiting(self.norm, self.up_to_norm(x))


def _let_norms_be_counted(counter: ModuleType) -> None:
    """mmcv's FLOPs counter goes by exact classes: ours are counted as torch's is."""
    stock = counter.get_modules_mapping

    @functools.wraps(stock)
    def get_modules_mapping() -> dict:
        hooks = stock()
        return {**hooks, **dict.fromkeys(FUSED_NORMS, hooks[nn.GroupNorm])}

    counter.get_modules_mapping = get_modules_mapping


# Which is there with mmcv.cnn, and there is nothing to count without.
if 'mmcv.cnn.utils.flops_counter' in sys.modules:
    _let_norms_be_counted(sys.modules['mmcv.cnn.utils.flops_counter'])

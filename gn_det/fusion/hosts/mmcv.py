"""mmcv's ConvModule, which most necks and heads are made of, and its FLOPs counter."""

from __future__ import annotations

import functools
import sys
from types import ModuleType

from torch import nn

from gn_det.fusion.calls import kind_of, norm_act
from gn_det.fusion.core import FusedModule, register
from gn_det.fusion.waiting import FusedPassing, call
from gn_det.layers import FUSED_NORMS

register('mmcv.cnn.bricks.drop.DropPath', code=['295356af9bba'])(FusedPassing)


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
    def last(module):
        plain = tuple(module.order) == ('conv', 'norm', 'act')
        ends = plain and module.with_norm and not module.with_activation
        return module.norm if ends else None

    def waiting(self, x):
        if self.last(self) is None:
            return None
        return call(self.norm, super().forward(x, activate=False, norm=False))

    def forward(self, x, activate=True, norm=True):
        if not norm or not activate or not self.with_activation:
            return super().forward(x, activate, norm)
        x = super().forward(x, activate=False, norm=False)
        return norm_act(self.norm, self.activate, x)


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

"""timm's norms, which have their activation inside, and the blocks around them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from gn_det.fusion.calls import (
    FusedNorm,
    activation_of,
    add_behind,
    ending,
    kind_of,
    norm_act,
    norm_add,
    norm_add_act,
)
from gn_det.fusion.core import FusedModule, register

_LAYERS = 'timm.layers'
_MODELS = 'timm.models'


@register(f'{_LAYERS}.norm.GroupNorm', code=['4cd820444e85'])
@register(f'{_LAYERS}.norm.GroupNorm1', code=['4cd820444e85'])
class FusedGroupNorm(FusedNorm):
    """Group Norm with the number of channels first."""

    @staticmethod
    def fused_norms(module):
        yield module, kind_of(None)


@register(f'{_LAYERS}.norm_act.GroupNormAct', code=['f2abd6d0fabc'])
@register(f'{_LAYERS}.norm_act.GroupNorm1Act', code=['f2abd6d0fabc'])
class FusedGroupNormAct(FusedNorm):
    """Group Norm that applies an activation itself, or none."""

    @staticmethod
    def fused_norms(module):
        if _does_nothing(module.drop):
            yield module, kind_of(None if _does_nothing(module.act) else module.act)
        else:
            yield module, f'{type(module.drop).__name__} follows it'

    def takes_in(self):
        return _does_nothing(self.drop) and _does_nothing(self.act)

    def forward(self, x, residual=None, activation=None):
        if not _does_nothing(self.drop):
            return self.act(self.drop(self.normalised(x)))
        if _does_nothing(self.act):
            return self.normalised(x, residual, activation)
        activation = activation_of(self.act)
        if activation is None:
            return self.act(self.normalised(x))
        return self.normalised(x, activation=activation)


@register(f'{_MODELS}.resnet.BasicBlock', code=['8e1cb085ef16'])
class FusedBasicBlock(FusedModule):
    """ResNet's block of two convolutions."""

    @staticmethod
    def fused_norms(module):
        yield module.bn1, _kind(module.drop_block, module.act1)
        yield from _at_the_end(module, module.bn2, module.act2)

    def forward(self, x):
        out = _norm_act(self.bn1, self.drop_block, self.act1, self.conv1(x))
        return _end(self, self.bn2, self.act2, self.conv2(self.aa(out)), x)


@register(f'{_MODELS}.resnet.Bottleneck', code=['cca649cea420'])
class FusedBottleneck(FusedModule):
    """ResNet's block of three convolutions."""

    @staticmethod
    def fused_norms(module):
        yield module.bn1, kind_of(module.act1)
        yield module.bn2, _kind(module.drop_block, module.act2)
        yield from _at_the_end(module, module.bn3, module.act3)

    def forward(self, x):
        out = norm_act(self.bn1, self.act1, self.conv1(x))
        out = _norm_act(self.bn2, self.drop_block, self.act2, self.conv2(out))
        return _end(self, self.bn3, self.act3, self.conv3(self.aa(out)), x)


@register(
    f'{_MODELS}.resnet.ResNet', code=['a98d1a88d9be'], methods=['forward_features']
)
class FusedResNet(FusedModule):
    """A whole ResNet, for its stem."""

    @staticmethod
    def fused_norms(module):
        yield module.bn1, kind_of(module.act1)

    def forward_features(self, x):
        if self.grad_checkpointing:
            return super().forward_features(x)
        x = self.maxpool(norm_act(self.bn1, self.act1, self.conv1(x)))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


@register(f'{_MODELS}.resnetv2.Bottleneck', code=['ba8e7bd03c60'])
class FusedBottleneckV2(FusedModule):
    """The block with activations behind, whose inner norms have their own."""

    @staticmethod
    def fused_norms(module):
        if _does_nothing(module.drop_path):
            yield module.norm3, kind_of(module.act3, add=True)

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.norm2(self.conv2(self.norm1(self.conv1(x))))
        return norm_add_act(self.norm3, self.act3, self.conv3(out), shortcut)


class _FusedSkip(FusedModule):
    """A block of EfficientNet, whose last norm has no activation behind it."""

    _in_order: str
    """Its children as they are called, the last norm at the end."""

    @classmethod
    def fused_norms(cls, module):
        if module.has_skip and _does_nothing(module.drop_path):
            yield getattr(module, cls._in_order.split()[-1]), 'add'

    def forward(self, x):
        *first, last = (getattr(self, name) for name in self._in_order.split())
        out = x
        for layer in first:
            out = out if layer is None else layer(out)
        return norm_add(last, out, x)


@register(
    f'{_MODELS}._efficientnet_blocks.DepthwiseSeparableConv', code=['dfe1a94531ee']
)
class FusedDepthwiseSeparable(_FusedSkip):
    """A convolution by channel and one between channels."""

    _in_order = 'conv_s2d bn_s2d conv_dw bn1 aa se conv_pw bn2'


@register(f'{_MODELS}._efficientnet_blocks.InvertedResidual', code=['8a6c4d5b01f8'])
class FusedInvertedResidual(_FusedSkip):
    """More channels, a convolution by channel, fewer channels."""

    _in_order = 'conv_s2d bn_s2d conv_pw bn1 conv_dw bn2 aa se conv_pwl bn3'


@register(f'{_MODELS}._efficientnet_blocks.EdgeResidual', code=['1b494f8cb81c'])
class FusedEdgeResidual(_FusedSkip):
    """More channels by a whole convolution, then fewer."""

    _in_order = 'conv_exp bn1 aa se conv_pwl bn2'


def _does_nothing(module: nn.Module | None) -> bool:
    return module is None or type(module) is nn.Identity


def _norm_act(norm: nn.Module, drop: nn.Module, act: nn.Module, x: Tensor) -> Tensor:
    if _does_nothing(drop):
        return norm_act(norm, act, x)
    return act(drop(norm(x)))


def _kind(drop: nn.Module, act: nn.Module) -> str:
    if _does_nothing(drop):
        return kind_of(act)
    return f'{type(drop).__name__} follows it'


def _between(block: nn.Module) -> list[nn.Module]:
    """What comes between the last norm of a block and the addition."""
    return [m for m in (block.se, block.drop_path) if not _does_nothing(m)]


def _at_the_end(
    block: nn.Module, norm: nn.Module, act: nn.Module
) -> Iterator[tuple[nn.Module, str]]:
    """What the last norm of a block takes in, or in its place the shortcut's."""
    sum_behind = kind_of(act, add=True)
    for module in _between(block):
        yield norm, f'{type(module).__name__} follows it'
        if block.downsample is not None:
            yield from ending(block.downsample, sum_behind)
        return
    yield norm, sum_behind


def _end(
    block: nn.Module, norm: nn.Module, act: nn.Module, out: Tensor, x: Tensor
) -> Tensor:
    """The last norm of a block, the addition and the activation."""
    between = _between(block)
    if not between:
        identity = x if block.downsample is None else block.downsample(x)
        return norm_add_act(norm, act, out, identity)
    out = norm(out)
    for module in between:
        out = module(out)
    if block.downsample is None:
        return act(out + x)
    return add_behind(block.downsample, x, out, act)

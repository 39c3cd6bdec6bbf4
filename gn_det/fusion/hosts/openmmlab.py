"""The backbones that mmdet, mmpretrain and mmseg each have in much the same words."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from gn_det.fusion.calls import (
    checkpointed,
    ending,
    kind_of,
    norm_act,
    norm_add_act,
)
from gn_det.fusion.core import FusedModule
from gn_det.fusion.waiting import add_behind


class FusedBasicBlock(FusedModule):
    """ResNet's block of two convolutions."""

    @staticmethod
    def fused_norms(module):
        yield module.norm1, kind_of(module.relu)
        yield from _at_the_end(module, module.norm2)

    def forward(self, x):
        def run(x: Tensor) -> Tensor:
            out = norm_act(self.norm1, self.relu, self.conv1(x))
            return end(self, self.norm2, self.conv2(out), x)

        return checkpointed(self, run, x)


class FusedBottleneck(FusedModule):
    """The block of three convolutions of ResNet, ResNeXt, SENet and ResNeSt."""

    @staticmethod
    def fused_norms(module):
        yield module.norm1, kind_of(module.relu)
        if _has_second_norm(module):
            yield module.norm2, kind_of(module.relu)
        yield from _at_the_end(module, module.norm3)

    def forward(self, x):
        def run(x: Tensor) -> Tensor:
            out = norm_act(self.norm1, self.relu, self.conv1(x))
            out = self.conv2(plugged(self, out, 1))
            if _has_second_norm(self):
                out = norm_act(self.norm2, self.relu, out)
            elif self.avg_down_stride:
                out = self.avd_layer(out)
            out = self.conv3(plugged(self, out, 2))
            return end(self, self.norm3, out, x)

        return checkpointed(self, run, x)


class FusedBottle2neck(FusedModule):
    """Res2Net's block: the second convolution in slices, each fed by the one before."""

    @staticmethod
    def fused_norms(module):
        yield module.norm1, kind_of(module.relu)
        for norm in module.bns:
            yield norm, kind_of(module.relu)
        yield from _at_the_end(module, module.norm3)

    def forward(self, x):
        def run(x: Tensor) -> Tensor:
            out = norm_act(self.norm1, self.relu, self.conv1(x))
            out = plugged(self, self._slices(plugged(self, out, 1)), 2)
            out = self.conv3(out)
            return end(self, self.norm3, out, x)

        return checkpointed(self, run, x)

    def _slices(self, x: Tensor) -> Tensor:
        *slices, last = torch.split(x, self.width, 1)
        outs = []
        for part, conv, norm in zip(slices, self.convs, self.bns, strict=True):
            if outs and self.stage_type != 'stage':
                part = outs[-1] + part
            outs.append(norm_act(norm, self.relu, conv(part.contiguous())))
        return torch.cat([*outs, self.pool(last) if self._pools() else last], 1)

    def _pools(self) -> bool:
        return self.stage_type == 'stage' and self.conv2_stride != 1


class FusedSplitAttention(FusedModule):
    """ResNeSt's convolution, whose splits are weighed by a small network."""

    @staticmethod
    def fused_norms(module):
        yield module.norm0, kind_of(module.relu)
        yield module.norm1, kind_of(module.relu)

    def forward(self, x):
        x = norm_act(self.norm0, self.relu, self.conv(x))
        splits = x.unflatten(1, (self.radix, -1))
        mean = nn.functional.adaptive_avg_pool2d(splits.sum(1), 1)
        mean = norm_act(self.norm1, self.relu, self.fc1(mean))
        weights = self.rsoftmax(self.fc2(mean)).view(len(x), -1, 1, 1)
        if self.radix == 1:
            return (weights * x).contiguous()
        weights = weights.unflatten(1, (self.radix, -1))
        return torch.sum(weights * splits, dim=1).contiguous()


class FusedResNet(FusedModule):
    """A ResNet with a stem of one convolution; a deep stem is a Sequential."""

    @staticmethod
    def fused_norms(module):
        if not getattr(module, 'deep_stem', False):
            yield module.norm1, kind_of(module.relu)

    def forward(self, x):
        x = self.maxpool(norm_act(self.norm1, self.relu, self.conv1(x)))
        return _stages(self, x)


class FusedResNetWithoutPool(FusedResNet):
    """A RegNet, or a ResNet for small images."""

    def forward(self, x):
        return _stages(self, norm_act(self.norm1, self.relu, self.conv1(x)))


class FusedHRNet(FusedModule):
    """The two convolutions in front of an HRNet's branches."""

    @staticmethod
    def fused_norms(module):
        yield module.norm1, kind_of(module.relu)
        yield module.norm2, kind_of(module.relu)

    def forward(self, x):
        x = norm_act(self.norm1, self.relu, self.conv1(x))
        x = norm_act(self.norm2, self.relu, self.conv2(x))
        maps = [self.layer1(x)]
        for stage in (2, 3, 4):
            transitions = getattr(self, f'transition{stage - 1}')
            maps = [self._branch(t, maps, i) for i, t in enumerate(transitions)]
            maps = getattr(self, f'stage{stage}')(maps)
        return self._outputs(maps)

    @staticmethod
    def _branch(transition: nn.Module | None, maps: list[Tensor], i: int) -> Tensor:
        return maps[i] if transition is None else transition(maps[-1])

    @staticmethod
    def _outputs(maps: list[Tensor]) -> list[Tensor]:
        return maps


class FusedHRModule(FusedModule):
    """HRNet's exchange between branches: each map is the sum of all of them.

    Of two norms that are added, one takes the other's map in.
    """

    @staticmethod
    def fused_norms(module):
        for i, layers in enumerate(module.fuse_layers or ()):
            for j, layer in enumerate(layers):
                if j >= i or not isinstance(layer, nn.Sequential):
                    continue
                if i == 1 and module.num_branches == 2:
                    yield from ending(layer, kind_of(module.relu, add=True))
                elif i > 1 and j == 0:
                    yield from ending(layer, 'the next norm takes their sum in')
                else:
                    yield from ending(layer, 'add')

    def forward(self, x):
        if self.num_branches == 1:
            return [self.branches[0](x[0])]
        for i, branch in enumerate(self.branches):
            x[i] = branch(x[i])
        return [self._sum(i, layers, x) for i, layers in enumerate(self.fuse_layers)]

    def _sum(self, i: int, layers: nn.ModuleList, x: list[Tensor]) -> Tensor:
        start = 1
        if i == 0:
            y = x[0]
        elif i > 1:
            y = layers[0](x[0])
        elif self.num_branches == 2:
            return add_behind(layers[0], x[0], x[1], self.relu)
        else:
            start, y = 2, add_behind(layers[0], x[0], x[1])
        for j in range(start, self.num_branches):
            if j < i:
                y = add_behind(layers[j], x[j], y)
            elif j == i:
                y = y + x[j]
            else:
                y = y + self._upsampled(layers[j](x[j]), x[i])
        return self.relu(y)

    @staticmethod
    def _upsampled(x: Tensor, like: Tensor) -> Tensor:
        # The layer ends in it.
        return x


def _stages(backbone: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    outs = []
    for i, name in enumerate(backbone.res_layers):
        x = getattr(backbone, name)(x)
        if i in backbone.out_indices:
            outs.append(x)
    return tuple(outs)


def _has_second_norm(block: nn.Module) -> bool:
    # ResNeSt's convolution has it inside.
    return hasattr(block, 'norm2_name') and hasattr(block, block.norm2_name)


def end(block: nn.Module, norm: nn.Module, out: Tensor, x: Tensor) -> Tensor:
    """The last norm of a block, the addition of the shortcut and the activation."""
    if block.downsample is None:
        return joined(block, norm, out, x)
    if any(_before_addition(block)):
        out = _up_to_addition(block, norm(out))
        return add_behind(block.downsample, x, out, block.relu)
    return joined(block, norm, out, block.downsample(x))


def joined(block: nn.Module, norm: nn.Module, out: Tensor, identity: Tensor) -> Tensor:
    """The same, of a shortcut that has been made already."""
    if any(_before_addition(block)):
        return block.relu(_up_to_addition(block, norm(out)) + identity)
    return norm_add_act(norm, block.relu, out, identity)


def _up_to_addition(block: nn.Module, out: Tensor) -> Tensor:
    for function, _ in _before_addition(block):
        out = function(out)
    return out


def kind_at_the_end(block: nn.Module) -> str:
    """What the last norm of a block takes in."""
    for _, name in _before_addition(block):
        return f'{name} follows it'
    return kind_of(block.relu, add=True)


def _at_the_end(block: nn.Module, norm: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    yield norm, kind_at_the_end(block)
    # In its place the norm of the shortcut takes the sum in.
    if any(_before_addition(block)) and block.downsample is not None:
        yield from ending(block.downsample, kind_of(block.relu, add=True))


def _before_addition(
    block: nn.Module,
) -> Iterator[tuple[Callable[[Tensor], Tensor], str]]:
    """What comes between the last norm of a block and the addition, and its name."""
    if _plugins(block, 3):
        yield lambda x: plugged(block, x, 3), 'a plugin'
    for name in ('se_layer', 'drop_path'):
        function = getattr(block, name, None)
        if not isinstance(function, (nn.Identity, type(None))):
            yield function, type(function).__name__


def _plugins(block: nn.Module, position: int) -> list[str]:
    if not getattr(block, 'with_plugins', False):
        return []
    return getattr(block, f'after_conv{position}_plugin_names')


def plugged(block: nn.Module, x: Tensor, position: int) -> Tensor:
    """What the plugins behind a convolution of a block make of x."""
    names = _plugins(block, position)
    return block.forward_plugin(x, names) if names else x

"""Blocks of mmcv and mmdet whose norms are called with what follows them.

Each class here gives one stock class another `forward` and nothing else: a fused module
is the stock module under a subclass of its own class (`fused_class`), so parameters,
buffers, hooks, names and `isinstance` stay as they were. What is no plain fused norm
or ReLU, or has hooks that would see another input or output, is called
as before, so blocks may mix.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn

from gn_det.layers import FUSED_NORMS
from gn_det.ops import recomputed

_NO_RELU = 'no ReLU follows it'


class FusedModule:
    """Mixed in before the stock class; see `fused_class`."""

    stock_forward: str
    """Module and name of the stock class whose `forward` the subclass replaces."""

    prefix = 'Fused'
    """What the subclass's name puts before the stock class's."""

    @classmethod
    def norms_of(cls, module: nn.Module) -> list[nn.Module]:
        """The Group Norms whose calls this instance of the stock class decides on."""
        return [m for m in module.children() if isinstance(m, nn.GroupNorm)]

    @classmethod
    def unfusable(cls, module: nn.Module) -> str | None:
        """Why this instance of the stock class has to keep its forward."""
        return None

    def norms(self) -> Iterator[tuple[nn.Module, str]]:
        """Each norm of this block, with the report's field for it or a reason."""
        return iter(())

    def __reduce_ex__(self, protocol: int) -> tuple:
        # The class is made at run time: copies and pickles name what it is made of.
        if not is_fused_class(type(self)):
            return super().__reduce_ex__(protocol)
        fusions = []
        stock = type(self)
        while is_fused_class(stock):
            fusions.insert(0, stock.fusion)
            stock = stock.stock
        return _new, (stock, *fusions), self.__getstate__()


@functools.cache
def fused_class(fusion: type[FusedModule], stock: type[nn.Module]) -> type:
    """The subclass of `stock` with the forward of `fusion`."""
    attributes = {'__module__': __name__, 'fusion': fusion, 'stock': stock}
    return type(f'{fusion.prefix}{stock.__name__}', (fusion, stock), attributes)


def is_fused_class(cls: type) -> bool:
    """Whether `fused_class` made it; one derived from such a class is another's."""
    return 'fusion' in vars(cls)


def owner_of_forward(cls: type) -> str:
    """Module and name of the class that defines the forward `cls` has."""
    owner = next(base for base in cls.__mro__ if 'forward' in vars(base))
    return f'{owner.__module__}.{owner.__qualname__}'


def _new(cls: type[nn.Module], *fusions: type[FusedModule]) -> nn.Module:
    for fusion in fusions:
        cls = fused_class(fusion, cls)
    return cls.__new__(cls)


def _is_relu(module: nn.Module | None) -> bool:
    return type(module) is nn.ReLU


def _is_bare(module: nn.Module) -> bool:
    """Whether a call of the module is the forward of its class and nothing else."""
    return not (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or 'forward' in module.__dict__
    )


def _takes_in(norm: nn.Module) -> bool:
    # A subclass may do more than normalise.
    return type(norm) in FUSED_NORMS and _is_bare(norm)


def _adds_up(x: Tensor, r: Tensor) -> bool:
    # Where dtypes differ the sum promotes, where shapes differ it broadcasts.
    return x.dtype == r.dtype and x.shape == r.shape


def _norm_relu(norm: nn.Module, relu: nn.Module, x: Tensor) -> Tensor:
    if _takes_in(norm) and _is_bare(relu):
        return norm(x, activation='relu')
    return relu(norm(x))


def _norm_add(norm: nn.Module, x: Tensor, r: Tensor) -> Tensor:
    if _takes_in(norm) and _adds_up(x, r):
        return norm(x, r)
    return norm(x) + r


def _norm_add_relu(norm: nn.Module, relu: nn.Module, x: Tensor, r: Tensor) -> Tensor:
    if _takes_in(norm) and _is_bare(relu) and _adds_up(x, r):
        return norm(x, r, activation='relu')
    return relu(norm(x) + r)


def _call(block: nn.Module, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The stock blocks' gradient checkpointing, asked for by `with_cp`."""
    if block.with_cp and x.requires_grad:
        return torch.utils.checkpoint.checkpoint(function, x, use_reentrant=False)
    return function(x)


class FusedConvModule(FusedModule):
    """Convolution → norm → ReLU, or without an activation convolution → norm."""

    stock_forward = 'mmcv.cnn.bricks.conv_module.ConvModule'

    @classmethod
    def unfusable(cls, module):
        if module.with_activation and not _is_relu(module.activate):
            return f'{type(module.activate).__name__} follows it, not ReLU'
        if tuple(module.order) != ('conv', 'norm', 'act'):
            return f'the order of the ConvModule is {"-".join(module.order)}'
        return None

    def norms(self):
        yield self.norm, 'relu' if self.with_activation else _NO_RELU

    def forward(self, x, activate=True, norm=True, residual=None):
        """The stock forward; `residual` is added to the norm's output."""
        if not norm or (self.with_activation and not activate):
            return super().forward(x, activate, norm)
        if self.with_explicit_padding:
            x = self.padding_layer(x)
        x = self.conv(x)
        if residual is not None:
            return _norm_add(self.norm, x, residual)
        if self.with_activation:
            return _norm_relu(self.norm, self.activate, x)
        return self.norm(x)


class FusedFPN(FusedModule):
    """The top-down path of a feature pyramid: the lateral norms add the coarser map."""

    stock_forward = 'mmdet.models.necks.fpn.FPN'

    @classmethod
    def norms_of(cls, module):
        *finer, _ = module.lateral_convs
        return [norm for conv in finer for norm in FusedConvModule.norms_of(conv)]

    @classmethod
    def unfusable(cls, module):
        if module.add_extra_convs:
            return 'the FPN has convolutions for extra levels'
        for conv in module.lateral_convs:
            known = owner_of_forward(type(conv)) == FusedConvModule.stock_forward
            if not (known or isinstance(conv, FusedConvModule)):
                return f'a lateral convolution of the FPN is a {type(conv).__name__}'
            if conv.with_activation:
                return 'an activation stands before the addition of the FPN'
            if reason := FusedConvModule.unfusable(conv):
                return reason
        return None

    def norms(self):
        *finer, _ = self.lateral_convs
        for conv in finer:
            yield conv.norm, 'add'

    def forward(self, inputs):
        assert len(inputs) == len(self.in_channels)
        inputs = inputs[self.start_level : self.backbone_end_level]
        laterals = [self.lateral_convs[-1](inputs[-1])]
        finer = zip(self.lateral_convs[:-1], inputs[:-1], strict=True)
        for conv, x in reversed(list(finer)):
            size = {} if 'scale_factor' in self.upsample_cfg else {'size': x.shape[2:]}
            upsample = functools.partial(_upsample, **size, **self.upsample_cfg)
            coarser = recomputed(upsample, laterals[0])
            if _is_bare(conv):
                laterals.insert(0, conv(x, residual=coarser))
            else:
                laterals.insert(0, conv(x) + coarser)
        outs = [conv(x) for conv, x in zip(self.fpn_convs, laterals, strict=True)]
        while len(outs) < self.num_outs:
            outs.append(F.max_pool2d(outs[-1], 1, stride=2))
        return tuple(outs)


def _upsample(x: Tensor, **settings: object) -> Tensor:
    """`F.interpolate`, of nearest neighbours in the dtype of x.

    CUDA's autocast runs it in float32. Neighbours are copied, which is exact in any
    dtype; in float32 every map behind the sum, and the sum, would be as wide.
    """
    kind = x.device.type
    copies = settings.get('mode', 'nearest') in ('nearest', 'nearest-exact')
    # Not every device has autocast, the meta device for one.
    if copies and torch.amp.is_autocast_available(kind):
        with torch.autocast(kind, enabled=False):
            return F.interpolate(x, **settings)
    return F.interpolate(x, **settings)


class FusedBasicBlock(FusedModule):
    """ResNet's block of two convolutions."""

    stock_forward = 'mmdet.models.backbones.resnet.BasicBlock'

    @classmethod
    def unfusable(cls, module):
        return None if _is_relu(module.relu) else 'the block has another activation'

    def norms(self):
        yield self.norm1, 'relu'
        yield self.norm2, 'add_relu'

    def forward(self, x):
        def run(x: Tensor) -> Tensor:
            out = _norm_relu(self.norm1, self.relu, self.conv1(x))
            identity = x if self.downsample is None else self.downsample(x)
            return _norm_add_relu(self.norm2, self.relu, self.conv2(out), identity)

        return _call(self, run, x)


class _FusedBottleneckEnd(FusedModule):
    """What the blocks of three convolutions share: the third one, and plugins."""

    @classmethod
    def unfusable(cls, module):
        return None if _is_relu(module.relu) else 'the block has another activation'

    def _plugins(self, x: Tensor, position: int) -> Tensor:
        if not self.with_plugins:
            return x
        return self.forward_plugin(x, self._plugins_after(position))

    def _plugins_after(self, position: int) -> list[str]:
        if not self.with_plugins:
            return []
        return getattr(self, f'after_conv{position}_plugin_names')

    def _end_norm(self) -> tuple[nn.Module, str]:
        if self._plugins_after(3):
            return self.norm3, 'a plugin follows it'
        return self.norm3, 'add_relu'

    def _end(self, out: Tensor, x: Tensor) -> Tensor:
        out = self.conv3(out)
        identity = x if self.downsample is None else self.downsample(x)
        if self._plugins_after(3):
            return self.relu(self._plugins(self.norm3(out), 3) + identity)
        return _norm_add_relu(self.norm3, self.relu, out, identity)


class FusedBottleneck(_FusedBottleneckEnd):
    """ResNet's and ResNeXt's block of three convolutions."""

    stock_forward = 'mmdet.models.backbones.resnet.Bottleneck'

    def norms(self):
        yield self.norm1, 'relu'
        yield self.norm2, 'relu'
        yield self._end_norm()

    def forward(self, x):
        def run(x: Tensor) -> Tensor:
            out = _norm_relu(self.norm1, self.relu, self.conv1(x))
            out = self._plugins(out, 1)
            out = _norm_relu(self.norm2, self.relu, self.conv2(out))
            out = self._plugins(out, 2)
            return self._end(out, x)

        return _call(self, run, x)


class FusedBottle2neck(_FusedBottleneckEnd):
    """Res2Net's block: the second convolution in slices, each fed by the one before."""

    stock_forward = 'mmdet.models.backbones.res2net.Bottle2neck'

    def norms(self):
        yield self.norm1, 'relu'
        for norm in self.bns:
            yield norm, 'relu'
        yield self._end_norm()

    def forward(self, x):
        def run(x: Tensor) -> Tensor:
            out = _norm_relu(self.norm1, self.relu, self.conv1(x))
            return self._end(self._plugins(self._slices(self._plugins(out, 1)), 2), x)

        return _call(self, run, x)

    def _slices(self, x: Tensor) -> Tensor:
        *slices, last = torch.split(x, self.width, 1)
        outs = []
        for part, conv, norm in zip(slices, self.convs, self.bns, strict=True):
            if outs and self.stage_type != 'stage':
                part = outs[-1] + part
            outs.append(_norm_relu(norm, self.relu, conv(part.contiguous())))
        strided = self.stage_type == 'stage' and self.conv2_stride != 1
        return torch.cat([*outs, self.pool(last) if strided else last], 1)


class FusedStem(FusedModule):
    """A ResNet with a stem of one convolution; a deep stem is a Sequential."""

    stock_forward = 'mmdet.models.backbones.resnet.ResNet'

    @classmethod
    def unfusable(cls, module):
        return None if _is_relu(module.relu) else 'the stem has another activation'

    def norms(self):
        yield self.norm1, 'relu'

    def forward(self, x):
        x = self.maxpool(_norm_relu(self.norm1, self.relu, self.conv1(x)))
        outs = []
        for i, name in enumerate(self.res_layers):
            x = getattr(self, name)(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)


class FusedSequential(FusedModule):
    """A Sequential in which a ReLU stands right behind a norm."""

    stock_forward = 'torch.nn.modules.container.Sequential'

    @classmethod
    def unfusable(cls, module):
        return None if any(_norm_relu_pairs(module)) else _NO_RELU

    def norms(self):
        for norm, _ in _norm_relu_pairs(self):
            yield norm, 'relu'

    def forward(self, x):
        pending = None
        for layer in self:
            if pending is not None:
                norm, pending = pending, None
                if _is_relu(layer):
                    x = _norm_relu(norm, layer, x)
                    continue
                x = norm(x)
            if _takes_in(layer):
                pending = layer
            else:
                x = layer(x)
        return x if pending is None else pending(x)


def _norm_relu_pairs(layers: nn.Sequential) -> Iterator[tuple[nn.Module, nn.Module]]:
    for norm, relu in itertools.pairwise(layers):
        if isinstance(norm, nn.GroupNorm) and _is_relu(relu):
            yield norm, relu


FUSIONS: dict[str, type[FusedModule]] = {
    fusion.stock_forward: fusion
    for fusion in (
        FusedConvModule,
        FusedFPN,
        FusedBasicBlock,
        FusedBottleneck,
        FusedBottle2neck,
        FusedStem,
        FusedSequential,
    )
}

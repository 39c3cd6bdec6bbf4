"""torchvision's backbones and feature pyramid."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from gn_det.fusion.calls import (
    add_behind,
    ending,
    kind_of,
    norm_act,
    norm_add_act,
    upsample,
)
from gn_det.fusion.core import FusedModule, register
from gn_det.fusion.hosts.torch import norms_in, run_through

_MODELS = 'torchvision.models'


@register(f'{_MODELS}.resnet.BasicBlock', code=['a266981d536d'])
class FusedBasicBlock(FusedModule):
    """ResNet's block of two convolutions."""

    @staticmethod
    def fused_norms(module):
        yield module.bn1, kind_of(module.relu)
        yield module.bn2, kind_of(module.relu, add=True)

    def forward(self, x):
        out = norm_act(self.bn1, self.relu, self.conv1(x))
        identity = x if self.downsample is None else self.downsample(x)
        return norm_add_act(self.bn2, self.relu, self.conv2(out), identity)


@register(f'{_MODELS}.resnet.Bottleneck', code=['7110a940ca87'])
class FusedBottleneck(FusedModule):
    """The block of three convolutions of ResNet, ResNeXt and Wide ResNet."""

    @staticmethod
    def fused_norms(module):
        yield module.bn1, kind_of(module.relu)
        yield module.bn2, kind_of(module.relu)
        yield module.bn3, kind_of(module.relu, add=True)

    def forward(self, x):
        out = norm_act(self.bn1, self.relu, self.conv1(x))
        out = norm_act(self.bn2, self.relu, self.conv2(out))
        identity = x if self.downsample is None else self.downsample(x)
        return norm_add_act(self.bn3, self.relu, self.conv3(out), identity)


@register(
    f'{_MODELS}.resnet.ResNet',
    code=['e44acce53a26'],
    methods=['forward', '_forward_impl'],
)
class FusedResNet(FusedModule):
    """A whole ResNet, for its stem."""

    @staticmethod
    def fused_norms(module):
        yield module.bn1, kind_of(module.relu)

    def forward(self, x):
        x = self.maxpool(norm_act(self.bn1, self.relu, self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


@register(f'{_MODELS}._utils.IntermediateLayerGetter', code=['809bbc9576eb'])
class FusedIntermediateLayers(FusedModule):
    """A backbone as detectors have it: its layers by name, one after the other."""

    @staticmethod
    def fused_norms(module):
        return norms_in(module.values())

    def forward(self, x):
        outs = OrderedDict()
        layers = []
        for name, layer in self.items():
            layers.append(layer)
            if name in self.return_layers:
                x, layers = run_through(layers, x), []
                outs[self.return_layers[name]] = x
        return outs


@register(f'{_MODELS}.regnet.ResBottleneckBlock', code=['b5f393c6f9cb'])
class FusedRegNetBlock(FusedModule):
    """RegNet's block, a sequence of convolutions beside the identity."""

    @staticmethod
    def fused_norms(module):
        yield from ending(module.f, kind_of(module.activation, add=True))

    def forward(self, x):
        identity = x if self.proj is None else self.proj(x)
        return add_behind(self.f, x, identity, self.activation)


class FusedInvertedResidual(FusedModule):
    """MobileNet's block, whose last norm has no activation behind it."""

    @staticmethod
    def fused_norms(module):
        if module.use_res_connect:
            yield from ending(_layers(module), 'add')

    def forward(self, x):
        return add_behind(_layers(self), x, x)


register(f'{_MODELS}.mobilenetv2.InvertedResidual', code=['d7e75ebacb64'])(
    FusedInvertedResidual
)
register(f'{_MODELS}.mobilenetv3.InvertedResidual', code=['825ac6c4e60c'])(
    FusedInvertedResidual
)


@register(
    'torchvision.ops.feature_pyramid_network.FeaturePyramidNetwork',
    code=['521b67653f17'],
    methods=['forward', 'get_result_from_inner_blocks', 'get_result_from_layer_blocks'],
)
class FusedPyramid(FusedModule):
    """The feature pyramid: the lateral norms add the coarser map."""

    @staticmethod
    def fused_norms(module):
        for conv in list(module.inner_blocks)[:-1]:
            yield from ending(conv, 'add')

    def forward(self, x):
        names, x = list(x), list(x.values())
        inner = self.inner_blocks[-1](x[-1])
        results = [self.layer_blocks[-1](inner)]
        for i in reversed(range(len(x) - 1)):
            coarser = upsample(inner, size=x[i].shape[-2:], mode='nearest')
            inner = add_behind(self.inner_blocks[i], x[i], coarser)
            results.insert(0, self.layer_blocks[i](inner))
        if self.extra_blocks is not None:
            results, names = self.extra_blocks(results, x, names)
        return OrderedDict(zip(names, results, strict=True))


def _layers(block: nn.Module) -> nn.Module:
    """The sequence of an inverted residual, of MobileNet v2 or v3."""
    return block.conv if 'conv' in block._modules else block.block

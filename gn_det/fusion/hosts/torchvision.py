"""torchvision's backbones and feature pyramid."""

from __future__ import annotations

from collections import OrderedDict

from gn_det.fusion.calls import ending, upsample
from gn_det.fusion.core import FusedModule, register
from gn_det.fusion.rewriting import Rewritten
from gn_det.fusion.waiting import FusedPassing, add_behind

_MODELS = 'torchvision.models'


_BLOCKS = {
    '_utils.IntermediateLayerGetter': '809bbc9576eb',
    'densenet.DenseNet': '06b726255e58',
    'efficientnet.FusedMBConv': '3175d85082fa',
    'efficientnet.MBConv': '3175d85082fa',
    'googlenet.BasicConv2d': 'cfa96a9998b8',
    'inception.BasicConv2d': 'cfa96a9998b8',
    'mnasnet._InvertedResidual': 'edca6fdd1309',
    'mobilenetv2.InvertedResidual': 'd7e75ebacb64',
    'mobilenetv3.InvertedResidual': '825ac6c4e60c',
    'regnet.ResBottleneckBlock': 'b5f393c6f9cb',
    'resnet.BasicBlock': 'a266981d536d',
    'resnet.Bottleneck': '7110a940ca87',
    'segmentation.deeplabv3.ASPPPooling': 'af29b4e974f2',
    'video.resnet.BasicBlock': 'd5ef31a0c9c1',
    'video.resnet.Bottleneck': 'f6b3d4d82a29',
}

for _name, _code in _BLOCKS.items():
    register(f'{_MODELS}.{_name}', code=[_code])(Rewritten)

for _name, _code, _methods in (
    ('densenet._DenseLayer', 'bfc281454dfe', ['forward', 'bn_function']),
    ('resnet.ResNet', 'e44acce53a26', ['forward', '_forward_impl']),
):
    register(f'{_MODELS}.{_name}', code=[_code], methods=_methods)(Rewritten)

register('torchvision.ops.stochastic_depth.StochasticDepth', code=['d597907a82fb'])(
    FusedPassing
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

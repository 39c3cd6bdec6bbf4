"""MMPretrain's backbones."""

from __future__ import annotations

from gn_det.fusion.core import register
from gn_det.fusion.hosts import openmmlab

_HERE = 'mmpretrain.models.backbones'

for _name, _code, _fusion in (
    ('resnet.BasicBlock', '2dad2ff76966', openmmlab.FusedBasicBlock),
    ('resnet.Bottleneck', '1bf704dea81d', openmmlab.FusedBottleneck),
    ('seresnet.SEBottleneck', '65cb81a8eb61', openmmlab.FusedBottleneck),
    ('resnest.Bottleneck', 'ecd3f6fda7de', openmmlab.FusedBottleneck),
    ('resnest.SplitAttentionConv2d', 'a2d0bf2f906b', openmmlab.FusedSplitAttention),
    ('resnet.ResNet', '700b3e83c5a1', openmmlab.FusedResNet),
    ('regnet.RegNet', 'd529e7048b9a', openmmlab.FusedResNetWithoutPool),
    ('resnet_cifar.ResNet_CIFAR', 'd529e7048b9a', openmmlab.FusedResNetWithoutPool),
    ('hrnet.HRModule', '4bfe7be36257', openmmlab.FusedHRModule),
):
    register(f'{_HERE}.{_name}', code=[_code])(_fusion)


@register(f'{_HERE}.hrnet.HRNet', code=['4ef7d491d03a'])
class FusedHRNet(openmmlab.FusedHRNet):
    """The two convolutions in front of an HRNet's branches."""

    @staticmethod
    def _branch(transition, maps, i):
        return transition(maps[min(i, len(maps) - 1)])

    @staticmethod
    def _outputs(maps):
        return tuple(maps)


@register(f'{_HERE}.res2net.Bottle2neck', code=['a923da995f7e'])
class FusedBottle2neck(openmmlab.FusedBottle2neck):
    """Res2Net's block, which pools its last slice with any stride."""

    def _pools(self):
        return self.stage_type == 'stage'

"""MMSegmentation's backbones."""

from __future__ import annotations

import torch.nn.functional as F

from gn_det.fusion.core import register
from gn_det.fusion.hosts import openmmlab

_HERE = 'mmseg.models.backbones'

for _name, _code, _fusion in (
    ('resnet.BasicBlock', 'a23f77bb9844', openmmlab.FusedBasicBlock),
    ('resnet.Bottleneck', '60343081bf85', openmmlab.FusedBottleneck),
    ('resnest.Bottleneck', '38b7c749696b', openmmlab.FusedBottleneck),
    ('resnest.SplitAttentionConv2d', '6118b3d7065c', openmmlab.FusedSplitAttention),
    ('resnet.ResNet', '700b3e83c5a1', openmmlab.FusedResNet),
    ('hrnet.HRNet', '5f3877071552', openmmlab.FusedHRNet),
):
    register(f'{_HERE}.{_name}', code=[_code])(_fusion)


@register(f'{_HERE}.hrnet.HRModule', code=['ec4b3da1a2a5'])
class FusedHRModule(openmmlab.FusedHRModule):
    """The exchange between branches, with maps upsampled to each other's size."""

    @staticmethod
    def _upsampled(x, like):
        settings = dict(mode='bilinear', align_corners=False)
        return F.interpolate(x, size=like.shape[2:], **settings)

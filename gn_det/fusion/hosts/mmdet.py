"""MMDetection's backbones, necks and heads."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gn_det.fusion.calls import (
    checkpointed,
    ending,
    kind_of,
    norm_act,
    upsample,
)
from gn_det.fusion.core import FusedModule, register
from gn_det.fusion.hosts import openmmlab
from gn_det.fusion.rewriting import Rewritten
from gn_det.fusion.waiting import add_behind
from gn_det.ops import recomputed

_BACKBONES = 'mmdet.models.backbones'
_NECKS = 'mmdet.models.necks'
_LAYERS = 'mmdet.models.layers'

for _name, _code, _fusion in (
    ('resnet.BasicBlock', 'a23f77bb9844', openmmlab.FusedBasicBlock),
    ('resnet.Bottleneck', '60343081bf85', openmmlab.FusedBottleneck),
    ('resnest.Bottleneck', '38b7c749696b', openmmlab.FusedBottleneck),
    ('resnest.SplitAttentionConv2d', '6118b3d7065c', openmmlab.FusedSplitAttention),
    ('res2net.Bottle2neck', 'fe7581bf7a8a', openmmlab.FusedBottle2neck),
    ('resnet.ResNet', '700b3e83c5a1', openmmlab.FusedResNet),
    ('regnet.RegNet', 'd529e7048b9a', openmmlab.FusedResNetWithoutPool),
    ('hrnet.HRNet', '5f3877071552', openmmlab.FusedHRNet),
    ('hrnet.HRModule', '4bfe7be36257', openmmlab.FusedHRModule),
):
    register(f'{_BACKBONES}.{_name}', code=[_code])(_fusion)


@register(f'{_NECKS}.fpn.FPN', code=['a15c1ee90632'])
class FusedFPN(FusedModule):
    """The feature pyramid, whose lateral norms add the coarser map.

    Written out so that maps are upsampled in 16 bits.
    """

    @staticmethod
    def fused_norms(module):
        *finer, _ = module.lateral_convs
        for conv in finer:
            yield from ending(conv, 'add')

    def forward(self, inputs):
        assert len(inputs) == len(self.in_channels)
        used = inputs[self.start_level : self.backbone_end_level]
        laterals = [self.lateral_convs[-1](used[-1])]
        finer = zip(self.lateral_convs[:-1], used[:-1], strict=True)
        for conv, x in reversed(list(finer)):
            coarser = recomputed(self._upsampled(x, laterals[0]), laterals[0])
            laterals.insert(0, add_behind(conv, x, coarser))
        levels = len(laterals)
        outs = [conv(x) for conv, x in zip(self.fpn_convs, laterals, strict=False)]
        outs = self._bottom_up(outs)
        sources = {
            'on_input': used[-1],
            'on_lateral': laterals[-1],
            'on_output': outs[-1],
        }
        for i in range(levels, self.num_outs):
            if not self.add_extra_convs:
                outs.append(F.max_pool2d(outs[-1], 1, stride=2))
            elif i == levels:
                outs.append(self.fpn_convs[i](sources[self.add_extra_convs]))
            elif self.relu_before_extra_convs:
                outs.append(self.fpn_convs[i](F.relu(outs[-1])))
            else:
                outs.append(self.fpn_convs[i](outs[-1]))
        return tuple(outs)

    def _upsampled(self, x: Tensor, coarser: Tensor) -> Callable[[Tensor], Tensor]:
        size = {} if 'scale_factor' in self.upsample_cfg else {'size': x.shape[2:]}
        return functools.partial(upsample, **size, **self.upsample_cfg)

    def _bottom_up(self, outs: list[Tensor]) -> list[Tensor]:
        return outs


@register(f'{_NECKS}.pafpn.PAFPN', code=['2787f7f0e653'])
class FusedPAFPN(FusedFPN):
    """The pyramid with a second way up, whose norms add the finer map."""

    @staticmethod
    def fused_norms(module):
        yield from FusedFPN.fused_norms(module)
        for conv in module.downsample_convs:
            yield from ending(conv, 'add')

    def _upsampled(self, x, coarser):
        return functools.partial(upsample, size=x.shape[2:], mode='nearest')

    def _bottom_up(self, outs):
        for i, conv in enumerate(self.downsample_convs):
            outs[i + 1] = add_behind(conv, outs[i], outs[i + 1])
        return outs[:1] + [
            conv(x) for conv, x in zip(self.pafpn_convs, outs[1:], strict=True)
        ]


@register(
    f'{_LAYERS}.msdeformattn_pixel_decoder.MSDeformAttnPixelDecoder',
    code=['3e7d926b59d0'],
)
@register(
    f'{_LAYERS}.pixel_decoder.TransformerEncoderPixelDecoder', code=['2a5a9462d9af']
)
@register(f'{_LAYERS}.pixel_decoder.PixelDecoder', code=['1e3c5a0fe9fd'])
class FusedPixelDecoder(Rewritten):
    """The top-down path of MaskFormer and Mask2Former."""

    @staticmethod
    def fused_norms(module):
        for conv in module.lateral_convs:
            yield from ending(conv, 'add')


@register(f'{_BACKBONES}.trident_resnet.TridentBottleneck', code=['cde59e18949e'])
class FusedTridentBottleneck(FusedModule):
    """ResNet's block on three maps, with one set of weights."""

    @staticmethod
    def fused_norms(module):
        yield module.norm1, kind_of(module.relu)
        yield module.norm2, kind_of(module.relu)
        yield module.norm3, openmmlab.kind_at_the_end(module)

    def forward(self, x):
        def run(x: Tensor | list[Tensor]) -> list[Tensor]:
            maps = identities = x
            if not isinstance(x, list):
                branches = self.training or self.test_branch_idx == -1
                maps = identities = [x] * (self.num_branch if branches else 1)
                if self.downsample is not None:
                    identities = [self.downsample(x) for x in maps]
            outs = [norm_act(self.norm1, self.relu, self.conv1(x)) for x in maps]
            outs = self.conv2([openmmlab.plugged(self, out, 1) for out in outs])
            outs = [norm_act(self.norm2, self.relu, out) for out in outs]
            outs = [self.conv3(openmmlab.plugged(self, out, 2)) for out in outs]
            pairs = zip(outs, identities, strict=True)
            return [openmmlab.joined(self, self.norm3, *pair) for pair in pairs]

        outs = run(x) if isinstance(x, list) else checkpointed(self, run, x)
        return torch.cat(outs, dim=0) if self.concat_output else outs


@register('mmdet.models.roi_heads.mask_heads.grid_head.GridHead', code=['a97bb8ac296c'])
class FusedGridHead(FusedModule):
    """Grid R-CNN's head, with a norm between its two transposed convolutions."""

    @staticmethod
    def fused_norms(module):
        yield module.norm1, kind_of(F.relu)

    def forward(self, x):
        assert x.shape[-1] == x.shape[-2] == self.roi_feat_size
        x = self.convs(x)
        width = self.point_feat_channels

        def point(i: int) -> Tensor:
            return x[:, i * width : (i + 1) * width]

        first = self._gathered(point, point, self.forder_trans)
        second = self._gathered(point, first.__getitem__, self.sorder_trans)
        heatmap = self._heatmap(torch.cat(second, dim=1))
        unfused = self._heatmap(x) if self.training else heatmap
        return dict(fused=heatmap, unfused=unfused)

    def _gathered(
        self,
        point: Callable[[int], Tensor],
        near: Callable[[int], Tensor],
        layers: nn.ModuleList,
    ) -> list[Tensor]:
        outs = []
        for i, neighbours in enumerate(self.neighbor_points):
            out = point(i)
            for j, layer in zip(neighbours, layers[i], strict=True):
                out = out + layer(near(j))
            outs.append(out)
        return outs

    def _heatmap(self, x: Tensor) -> Tensor:
        return self.deconv2(norm_act(self.norm1, F.relu, self.deconv1(x)))

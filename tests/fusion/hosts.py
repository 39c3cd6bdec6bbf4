"""Small models of every host with Group Norm, by name: what builds one, its input."""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gn_det import convert_norm

# Not in the environment of the other tests: mmdet looks for mmpretrain and would
# import it at every start.
FOLDER = Path(__file__).resolve().parents[2] / '.hosts'

GN = dict(type='GN', num_groups=4)
SMALL = dict(norm_cfg=GN, base_channels=16, stem_channels=16)


def need(host: str) -> None:
    """Skip the test where a host is not installed."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    if importlib.util.find_spec(host) is None:
        pytest.skip(f'{host} is not installed (`make test` installs it)')


def images(size: int = 64) -> Tensor:
    """Two images."""
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def maps(*channels: int, size: int = 16) -> list[Tensor]:
    """The maps of a backbone, each half as large as the one before."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, c, size >> i, size >> i) for i, c in enumerate(channels)]
    return [torch.randn(shape, generator=generator) for shape in shapes]


class Called(nn.Module):
    """A model that is called with other arguments than one map."""

    def __init__(self, module: nn.Module, *args: object) -> None:
        super().__init__()
        self.module = module
        self.args = args

    def forward(self, x: object) -> object:
        return self.module(x, *self.args)


# torchvision


def _gn(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(4, channels)


def tv_resnet(block: str, **settings: object):
    from torchvision.models import resnet

    block = getattr(resnet, block)
    layers = [1, 1, 2, 1]
    return resnet.ResNet(block, layers, 10, norm_layer=_gn, **settings), images()


def tv_regnet(activation: type[nn.Module] = nn.ReLU, **settings: object):
    from torchvision.models.regnet import BlockParams, RegNet

    params = BlockParams(
        depths=[1, 2],
        widths=[8, 16],
        group_widths=[8, 8],
        bottleneck_multipliers=[1.0, 1.0],
        strides=[2, 2],
        **settings,
    )
    model = RegNet(params, 10, stem_width=8, norm_layer=_gn, activation=activation)
    return model, images()


def tv_mobilenet(version: int):
    from torchvision import models

    build = models.mobilenet_v2 if version == 2 else models.mobilenet_v3_small
    return build(norm_layer=_gn), images()


def tv_densenet():
    from torchvision.models import DenseNet

    model = DenseNet(8, (2, 2), num_init_features=16, num_classes=10)
    return converted(model), images()


def tv_efficientnet(**settings: object):
    from torchvision.models import efficientnet as host

    blocks = [
        host.FusedMBConvConfig(4, 3, 1, 8, 8, 1),
        host.MBConvConfig(4, 3, 2, 8, 16, 2),
    ]
    model = host.EfficientNet(
        blocks, 0, num_classes=10, last_channel=32, norm_layer=_gn, **settings
    )
    return model, images()


def tv_fpn():
    from torchvision.models import detection, resnet

    backbone = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], norm_layer=_gn)
    build = detection.backbone_utils.BackboneWithFPN
    returned = {f'layer{i}': str(i) for i in range(1, 5)}
    model = build(backbone, returned, [64, 128, 256, 512], 16, norm_layer=_gn)
    return model, images()


def tv_detector():
    from torchvision.models import detection, resnet
    from torchvision.models.detection import faster_rcnn

    backbone = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1])
    returned = {f'layer{i}': str(i) for i in range(1, 5)}
    backbone = detection.backbone_utils.BackboneWithFPN(
        backbone, returned, [64, 128, 256, 512], 16, norm_layer=nn.BatchNorm2d
    )
    head = faster_rcnn.FastRCNNConvFCHead(
        (16, 7, 7), [16, 16], [32], norm_layer=nn.BatchNorm2d
    )
    sizes = tuple((8 << i,) for i in range(5))
    anchors = detection.rpn.AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
    model = detection.FasterRCNN(
        backbone,
        rpn_anchor_generator=anchors,
        box_head=head,
        box_predictor=faster_rcnn.FastRCNNPredictor(32, 3),
        min_size=64,
        max_size=64,
    )
    targets = [
        dict(boxes=torch.tensor([[8.0, 8.0, 40.0, 48.0]]), labels=torch.tensor([i]))
        for i in (1, 2)
    ]
    return Called(converted(model), targets), list(images())


def converted(model: nn.Module) -> nn.Module:
    """With Group Norm in the place of Batch Norm."""
    return convert_norm(model, 'GN', num_groups=4)[0]


# timm


def timm_resnet(block: str, **settings: object):
    from timm.layers import GroupNorm
    from timm.models import resnet

    norm = functools.partial(GroupNorm, num_groups=4)
    block = getattr(resnet, block)
    model = resnet.ResNet(block, (1, 1, 1, 1), 10, norm_layer=norm, **settings)
    return model, images()


def timm_resnetv2(**settings: object):
    from timm.layers import GroupNormAct
    from timm.models.resnetv2 import ResNetV2

    norm = functools.partial(GroupNormAct, num_groups=4)
    channels = (16, 32, 32, 64)
    layers = (1, 1, 2, 1)
    model = ResNetV2(layers, channels, 10, stem_chs=8, norm_layer=norm, **settings)
    return model, images()


def timm_other_block(module: str, block: str, **settings: object):
    from timm.layers import GroupNorm
    from timm.models.resnet import ResNet

    norm = functools.partial(GroupNorm, num_groups=4)
    block = getattr(importlib.import_module(f'timm.models.{module}'), block)
    model = ResNet(block, (1, 1, 1, 1), 10, norm_layer=norm, **settings)
    return model, images()


def timm_named(name: str, **settings: object):
    import timm

    return converted(timm.create_model(name, **settings)), images()


# OpenMMLab


def mm_backbone(host: str, name: str, **settings: object):
    backbones = importlib.import_module(f'{host}.models.backbones')
    return getattr(backbones, name)(**settings), images()


def _hrnet(host: str):
    def stage(branches: int, block: str = 'BASIC') -> dict:
        return dict(
            num_modules=1,
            num_branches=branches,
            block=block,
            num_blocks=(1,) * branches,
            num_channels=tuple(8 << i for i in range(branches)),
        )

    extra = {f'stage{i}': stage(i) for i in (2, 3, 4)}
    extra['stage1'] = stage(1, 'BOTTLENECK')
    return mm_backbone(host, 'HRNet', extra=extra, norm_cfg=GN)


def mmdet_pafpn(**settings: object):
    from mmdet.models.necks import PAFPN

    return PAFPN([8, 16, 16], 16, 4, norm_cfg=GN, **settings), maps(8, 16, 16)


def mmdet_pixel_decoder(name: str):
    from mmdet.models import layers
    from mmengine.config import ConfigDict

    channels = [8, 16, 16, 16]
    settings = dict(feat_channels=16, out_channels=16, norm_cfg=GN)
    if name == 'PixelDecoder':
        return Called(layers.PixelDecoder(channels, **settings), []), maps(*channels)
    attention = dict(embed_dims=16, num_heads=2, batch_first=True)
    ffn = dict(embed_dims=16, feedforward_channels=16)
    positional = dict(num_feats=8, normalize=True)
    encoder = dict(num_layers=1, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn))
    settings |= dict(encoder=ConfigDict(encoder), positional_encoding=positional)
    if name == 'TransformerEncoderPixelDecoder':
        model = layers.TransformerEncoderPixelDecoder(channels, **settings)
        meta = dict(batch_input_shape=(64, 64), img_shape=(64, 64))
        return Called(model, [meta, meta]), maps(*channels)
    attention |= dict(num_levels=3, num_points=2)
    settings['encoder'] = ConfigDict(encoder)
    model = layers.MSDeformAttnPixelDecoder(
        channels, strides=[4, 8, 16, 32], num_outs=3, **settings
    )
    return model, maps(*channels)


def mmdet_grid_head():
    from mmdet.models.roi_heads.mask_heads import GridHead

    settings = dict(in_channels=16, point_feat_channels=4, num_convs=2)
    norm = dict(type='GN', num_groups=4)
    return GridHead(norm_cfg=norm, **settings), maps(16, size=14)[0]


def mmdet_trident(**settings: object):
    settings |= dict(num_branch=3, test_branch_idx=1, trident_dilations=(1, 2, 3))
    settings |= dict(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1))
    return mm_backbone(
        'mmdet', 'TridentResNet', depth=50, out_indices=(2,), **SMALL, **settings
    )


def mmdet_csp():
    from mmdet.models.backbones import CSPNeXt

    settings = dict(deepen_factor=0.2, widen_factor=0.25, act_cfg=dict(type='SiLU'))
    return CSPNeXt(norm_cfg=GN, **settings), images()


MODELS = {
    'torchvision-r18': lambda: tv_resnet('BasicBlock'),
    'torchvision-r50': lambda: tv_resnet('Bottleneck'),
    'torchvision-x50': lambda: tv_resnet('Bottleneck', groups=4, width_per_group=4),
    'torchvision-wide': lambda: tv_resnet('Bottleneck', width_per_group=128),
    'torchvision-regnetx': tv_regnet,
    'torchvision-regnety': lambda: tv_regnet(se_ratio=0.25),
    'torchvision-regnet-silu': lambda: tv_regnet(nn.SiLU),
    'torchvision-mobilenetv2': lambda: tv_mobilenet(2),
    'torchvision-mobilenetv3': lambda: tv_mobilenet(3),
    'torchvision-fpn': tv_fpn,
    'torchvision-densenet': tv_densenet,
    'torchvision-efficientnet': lambda: tv_efficientnet(stochastic_depth_prob=0),
    'timm-r18': lambda: timm_resnet('BasicBlock'),
    'timm-r50': lambda: timm_resnet('Bottleneck'),
    'timm-r50d-silu': lambda: timm_resnet(
        'Bottleneck', stem_type='deep', avg_down=True, act_layer=nn.SiLU
    ),
    'timm-resnetv2': timm_resnetv2,
    'timm-resnetv2-post': lambda: timm_resnetv2(preact=False),
    'torchvision-detector': tv_detector,
    'timm-resnet-bn': lambda: timm_named('test_resnet'),
    'timm-efficientnet-bn': lambda: timm_named('test_efficientnet'),
    'timm-efficientnet': lambda: timm_named('test_efficientnet_gn'),
    'timm-res2net': lambda: timm_other_block(
        'res2net', 'Bottle2neck', base_width=16, block_args=dict(scale=4)
    ),
    'timm-resnest': lambda: timm_other_block('resnest', 'ResNestBottleneck'),
    'timm-regnet': lambda: timm_named('regnety_002'),
    'timm-mobilenetv4': lambda: timm_named('mobilenetv4_conv_small'),
    'timm-features': lambda: timm_named('test_resnet', features_only=True),
    'mmpretrain-r18': lambda: mm_backbone('mmpretrain', 'ResNet', depth=18, **SMALL),
    'mmpretrain-r50': lambda: mm_backbone('mmpretrain', 'ResNet', depth=50, **SMALL),
    'mmpretrain-se': lambda: mm_backbone('mmpretrain', 'SEResNet', depth=50, **SMALL),
    'mmpretrain-v1d': lambda: mm_backbone('mmpretrain', 'ResNetV1d', depth=50, **SMALL),
    'mmpretrain-cifar': lambda: mm_backbone(
        'mmpretrain', 'ResNet_CIFAR', depth=18, **SMALL
    ),
    'mmpretrain-res2net': lambda: mm_backbone(
        'mmpretrain', 'Res2Net', depth=50, scales=4, base_width=32, **SMALL
    ),
    'mmpretrain-regnet': lambda: mm_backbone(
        'mmpretrain', 'RegNet', arch='regnetx_400mf', norm_cfg=GN
    ),
    'mmpretrain-resnest': lambda: mm_backbone(
        'mmpretrain', 'ResNeSt', depth=50, **SMALL
    ),
    'mmpretrain-hrnet': lambda: _hrnet('mmpretrain'),
    'mmpretrain-vgg': lambda: mm_backbone('mmpretrain', 'VGG', depth=11, norm_cfg=GN),
    'mmseg-r18': lambda: mm_backbone('mmseg', 'ResNet', depth=18, **SMALL),
    'mmseg-r50': lambda: mm_backbone('mmseg', 'ResNetV1c', depth=50, **SMALL),
    'mmseg-resnest': lambda: mm_backbone('mmseg', 'ResNeSt', depth=50, **SMALL),
    'mmseg-hrnet': lambda: _hrnet('mmseg'),
    'mmdet-resnest': lambda: mm_backbone('mmdet', 'ResNeSt', depth=50, **SMALL),
    'mmdet-regnet': lambda: mm_backbone(
        'mmdet', 'RegNet', arch='regnetx_400mf', norm_cfg=GN
    ),
    'mmdet-hrnet': lambda: _hrnet('mmdet'),
    'mmdet-trident': mmdet_trident,
    'mmdet-cspnext': mmdet_csp,
    'mmdet-pafpn': mmdet_pafpn,
    'mmdet-pafpn-extra': lambda: mmdet_pafpn(add_extra_convs='on_output'),
    'mmdet-pixel-decoder': lambda: mmdet_pixel_decoder('PixelDecoder'),
    'mmdet-maskformer': lambda: mmdet_pixel_decoder('TransformerEncoderPixelDecoder'),
    'mmdet-mask2former': lambda: mmdet_pixel_decoder('MSDeformAttnPixelDecoder'),
    'mmdet-grid-head': mmdet_grid_head,
}

"""Detectron (2018): GN backbones and whole GN detectors, in blobs of Caffe2."""

from __future__ import annotations

import re
from typing import Any

from gn_det.workbench.errors import UserError
from gn_det.workbench.zoo.convert.classes import background_last
from gn_det.workbench.zoo.convert.consuming import consume, shape_lookup
from gn_det.workbench.zoo.convert.conversion import (
    CAFFE_MEAN,
    DETECTRON_MEAN,
    Conversion,
    Preprocessing,
    describe,
    unwrap,
)
from gn_det.workbench.zoo.convert.layout import recognise_detector, recognise_resnet

SKIPPED = {
    r'.*_momentum': "the optimiser's momentum",
    r'lr': 'the learning rate',
    r'pred_[wb]': 'the ImageNet classifier',
    r'__preserve__/.*': 'blobs of another model that Detectron kept',
}

# What the weights were trained with beside the config's legacy parts.
LEGACY = dict(
    anchors='DetectronAnchorGenerator',
    bbox_coder='DetectronBBoxCoder',
    roi_align=dict(sampling_ratio=2, aligned=False),
    output='x2 and y2 plus one pixel at the original scale',
)

LICENCE = (
    'the files published by Detectron and detectron2 are under CC BY-SA 3.0, and so is '
    'what is made from them'
)

_HEADS = {
    'rpn_head.rpn_conv': 'conv_rpn_fpn2',
    'rpn_head.rpn_cls': 'rpn_cls_logits_fpn2',
    'rpn_head.rpn_reg': 'rpn_bbox_pred_fpn2',
    'roi_head.bbox_head.shared_fcs.0': 'fc6',
    'roi_head.bbox_head.fc_cls': 'cls_score',
    'roi_head.bbox_head.fc_reg': 'bbox_pred',
    'roi_head.mask_head.upsample': 'conv5_mask',
    'roi_head.mask_head.conv_logits': 'mask_fcn_logits',
}
_PARAMETERS = {
    ('conv', 'weight'): '_w',
    ('conv', 'bias'): '_b',
    ('gn', 'weight'): '_gn_s',
    ('gn', 'bias'): '_gn_b',
}


def blob_name(name: str, blocks: tuple[int, ...] = ()) -> str:
    """The blob that holds a weight of mmdet's model.

    Args:
        name: in mmdet, with or without `backbone.`.
        blocks: of the ResNet's stages; the neck's blobs are named after the last ones.
    """
    layer, _, parameter = name.removeprefix('backbone.').rpartition('.')
    if layer in _HEADS:
        return _HEADS[layer] + _PARAMETERS['conv', parameter]
    if match := re.fullmatch(r'(conv|gn)1', layer):
        return f'conv1{_PARAMETERS[match[1], parameter]}'
    if match := re.fullmatch(r'layer(\d)\.(\d+)\.(conv|gn)(\d)', layer):
        stage, block, kind, index = match.groups()
        branch = f'branch2{"abc"[int(index) - 1]}'
        return f'res{int(stage) + 1}_{block}_{branch}{_PARAMETERS[kind, parameter]}'
    if match := re.fullmatch(r'layer(\d)\.0\.downsample\.([01])', layer):
        kind = ('conv', 'gn')[int(match[2])]
        return f'res{int(match[1]) + 1}_0_branch1{_PARAMETERS[kind, parameter]}'
    prefix, kind = layer.rsplit('.', 1)
    suffix = _PARAMETERS[kind, parameter]
    part, _, index = prefix.rpartition('.')
    if part == 'roi_head.bbox_head.shared_convs':
        return f'head_conv{int(index) + 1}{suffix}'
    if part == 'roi_head.mask_head.convs':
        return f'_mask_fcn{int(index) + 1}{suffix}'
    level = int(index)
    last = f'res{level + 2}_{blocks[level] - 1}_sum'
    if part == 'neck.fpn_convs':
        return f'fpn_{last}{suffix}'
    lateral = '' if level == 3 else '_lateral'
    return f'fpn_inner_{last}{lateral}{suffix}'


def convert(content: Any) -> Conversion:
    """A Detectron `.pkl`, `{'blobs': …, 'cfg': …}` or the blobs themselves.

    Raises:
        UserError: if the blobs are not those of a GN ResNet or a GN Mask R-CNN.
    """
    blobs = unwrap(content, 'blobs')
    backbone = recognise_resnet(shape_lookup(blobs, blob_name))
    if backbone is None:
        raise UserError('holds no blobs of a Detectron ResNet (no res2_0_branch2a_w)')
    if 'conv1_gn_s' not in blobs:
        raise UserError('holds a Detectron ResNet without Group Norm (no conv1_gn_s)')

    def rename(name: str) -> str:
        return blob_name(name, backbone.blocks)

    detector = recognise_detector(shape_lookup(blobs, rename), backbone)
    model = detector or backbone
    state, skipped = consume(
        blobs,
        model.shapes(),
        rename,
        skipped=SKIPPED,
        change=background_last,
        what=f'the blobs of {describe(model)}',
    )
    result = Conversion(state, model, skipped=skipped, notes=[LICENCE])
    if detector is None:
        # mmdet fine-tunes from these weights with this mean, and so does the config.
        result.preprocessing = Preprocessing(CAFFE_MEAN)
        if backbone.depth in (50, 101):
            result.config = (
                f'configs/gn/mask-rcnn_r{backbone.depth}_fpn_gn-all_2x_coco.py'
            )
        return result
    result.preprocessing = Preprocessing(DETECTRON_MEAN)
    result.meta['legacy'] = LEGACY
    if backbone.depth in (50, 101) and detector.with_mask:
        cfg = content.get('cfg') if isinstance(content, dict) else None
        schedule = '3x' if 'MAX_ITER: 270000' in str(cfg) else '2x'
        result.config = (
            f'configs/detectron/mask-rcnn_r{backbone.depth}_fpn_gn-all-detectron_'
            f'{schedule}_coco.py'
        )
    return result

"""Checkpoints of mmdet itself: 0.x and 1.x, 2.x, and 3.x as it is."""

from __future__ import annotations

import ast
from typing import Any

import torch

from gn_det.workbench.errors import UserError
from gn_det.workbench.loading.weights import meta_of
from gn_det.workbench.zoo.convert.classes import background_last
from gn_det.workbench.zoo.convert.consuming import as_tensor, consume, shape_lookup
from gn_det.workbench.zoo.convert.conversion import (
    CAFFE_MEAN,
    DETECTRON_MEAN,
    IMAGENET,
    Conversion,
    Preprocessing,
    config_options,
    describe,
    unwrap,
)
from gn_det.workbench.zoo.convert.layout import (
    Detector,
    recognise_detector,
    recognise_resnet,
)

# mmdet 1 counted a box as x2 − x1 + 1 wide; mmdet 3 has parts that do so still, see its
# configs/legacy_1.x.
LEGACY_OPTIONS = {
    'model.rpn_head.anchor_generator.type': 'LegacyAnchorGenerator',
    'model.rpn_head.anchor_generator.center_offset': 0.5,
    'model.rpn_head.bbox_coder.type': 'LegacyDeltaXYWHBBoxCoder',
    'model.roi_head.bbox_head.bbox_coder.type': 'LegacyDeltaXYWHBBoxCoder',
    'model.roi_head.bbox_roi_extractor.roi_layer.sampling_ratio': 2,
    'model.roi_head.bbox_roi_extractor.roi_layer.aligned': False,
}
LEGACY_MASK_OPTIONS = {
    'model.roi_head.mask_roi_extractor.roi_layer.sampling_ratio': 2,
    'model.roi_head.mask_roi_extractor.roi_layer.aligned': False,
}


def mmdet1_name(name: str) -> str:
    """The name in mmdet 0.x and 1.x, where the RoI head was not a module."""
    return name.removeprefix('roi_head.')


def convert_mmdet1(content: Any) -> Conversion:
    """A GN Faster or Mask R-CNN of mmdet 0.x or 1.x, background class first.

    Raises:
        UserError: if it is anything else.
    """
    given = unwrap(content, 'state_dict')
    if any(name.startswith('roi_head.') for name in given):
        raise UserError('holds a detector of mmdet 2 or later; give --from mmdet2')
    detector = recognise(given, mmdet1_name)
    state, skipped = consume(
        given,
        detector.shapes(),
        mmdet1_name,
        change=background_last,
        what=f"mmdet 1's {describe(detector)}",
    )
    result = Conversion(state, detector, skipped=skipped)
    _add_meta(result, content, default=Preprocessing(DETECTRON_MEAN))
    result.options.update(LEGACY_OPTIONS)
    if detector.with_mask:
        result.options.update(LEGACY_MASK_OPTIONS)
    result.meta['legacy'] = dict(
        anchors='LegacyAnchorGenerator',
        bbox_coder='LegacyDeltaXYWHBBoxCoder',
        roi_align=dict(sampling_ratio=2, aligned=False),
    )
    return result


def convert_mmdet2(content: Any) -> Conversion:
    """A GN Faster or Mask R-CNN of mmdet 2.x: the weights are mmdet 3's, bit for bit.

    Raises:
        UserError: if it is anything else.
    """
    given = unwrap(content, 'state_dict')
    if 'bbox_head.fc_cls.weight' in given:
        raise UserError('holds a detector of mmdet 0.x or 1.x; give --from mmdet1')
    detector = recognise(given, str)
    state, skipped = consume(
        given, detector.shapes(), str, what=f"mmdet 2's {describe(detector)}"
    )
    result = Conversion(state, detector, skipped=skipped)
    _add_meta(result, content, default=Preprocessing(CAFFE_MEAN))
    return result


def convert_mmdet3(content: Any) -> Conversion:
    """Any checkpoint of mmdet 3.x, weights and meta as they are."""
    given = unwrap(content, 'state_dict')
    state = {
        name: as_tensor(value, name).clone(memory_format=torch.contiguous_format)
        for name, value in given.items()
    }
    try:
        model = recognise(given, str)
    except UserError:
        model = None
    return Conversion(state, model, meta=meta_of(content))


def recognise(given: dict[str, Any], rename: Any) -> Detector:
    """The GN detector a file of mmdet holds.

    Raises:
        UserError: if there is none.
    """
    lookup = shape_lookup(given, rename)
    backbone = recognise_resnet(lambda name: lookup(f'backbone.{name}'))
    detector = backbone and recognise_detector(lookup, backbone)
    if detector is None:
        raise UserError(
            'holds no Faster or Mask R-CNN of mmdet on a ResNet (no '
            f'backbone.layer1.0.conv1.weight or {rename("roi_head.bbox_head.fc_cls")}'
            '.weight)'
        )
    return detector


def _add_meta(result: Conversion, content: dict, default: Preprocessing) -> None:
    """Classes, preprocessing and the config that goes with an older checkpoint."""
    meta = meta_of(content)
    classes = meta.get('CLASSES')
    if classes and isinstance(classes, (list, tuple)):
        result.meta['dataset_meta'] = dict(classes=tuple(classes))
        if palette := meta.get('PALETTE'):
            result.meta['dataset_meta']['palette'] = palette
    if version := meta.get('mmdet_version'):
        result.meta['mmdet_version'] = str(version)
    text = str(meta.get('config') or '')
    found = _preprocessing(text)
    result.preprocessing = found or default
    if found is None:
        result.notes.append(
            'the file says neither how images have to look nor whether its '
            'convolutions are standardised (GN+WS); plain convolutions and '
            f'{default.as_config()} are taken, as for Detectron backbones'
        )
    result.config, of_config = _config(
        result.model, result.preprocessing, 'ConvWS' in text
    )
    if result.config:
        result.options.update(config_options(result.preprocessing, of_config))


def _config(
    model: Detector, pixels: Preprocessing, standardised: bool
) -> tuple[str | None, Preprocessing]:
    """The config of the zoo for an older detector, and how its images look."""
    backbone = model.backbone.short_name
    kind = 'mask' if model.with_mask else 'faster'
    of_config = Preprocessing()
    if standardised and backbone in ('r50', 'r101', 'x50-32x4d', 'x101-32x4d'):
        schedule = '2x' if model.with_mask else '1x'
        name = f'gn+ws/{kind}-rcnn_{backbone}_fpn_gn-ws-all_{schedule}'
        of_config = IMAGENET
    elif standardised or backbone not in ('r50', 'r101'):
        return None, of_config
    elif backbone == 'r50' and pixels == IMAGENET:
        name = (
            'gn/mask-rcnn_r50-contrib_fpn_gn-all_2x'
            if model.with_mask
            else 'scratch/faster-rcnn_r50-scratch_fpn_gn-all_6x'
        )
        of_config = IMAGENET
    else:
        name = f'gn/{kind}-rcnn_{backbone}_fpn_gn-all_2x'
    return f'configs/{name}_coco.py', of_config


def _preprocessing(config: str) -> Preprocessing | None:
    """`img_norm_cfg` of the text of an mmdet 1 or 2 config."""
    # mmdet 1 wrote the name of the file before its text.
    for text in (config, config.partition('\n')[2]):
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for node in tree.body:
            if (
                isinstance(node, ast.Assign)
                and ast.unparse(node.targets[0]) == 'img_norm_cfg'
                and isinstance(node.value, ast.Call)
            ):
                return _read_norm(node.value)
    return None


def _read_norm(call: ast.Call) -> Preprocessing | None:
    try:
        values = {k.arg: ast.literal_eval(k.value) for k in call.keywords}
        return Preprocessing(
            tuple(map(float, values['mean'])),
            tuple(map(float, values['std'])),
            bool(values['to_rgb']),
        )
    except (KeyError, TypeError, ValueError, RecursionError):
        return None

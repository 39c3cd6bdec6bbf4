"""detectron2's GN Mask R-CNN, from it and back to it; no legacy parts are needed."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from gn_det.workbench.errors import UserError
from gn_det.workbench.zoo.convert.consuming import as_tensor, consume, shape_lookup
from gn_det.workbench.zoo.convert.conversion import (
    CAFFE_MEAN,
    Conversion,
    Preprocessing,
    config_options,
    describe,
    unwrap,
)
from gn_det.workbench.zoo.convert.detectron import LICENCE
from gn_det.workbench.zoo.convert.layout import (
    Detector,
    recognise_detector,
    recognise_resnet,
)

SKIPPED = {
    r'pixel_(mean|std)': 'pixel statistics, which are in the meta',
    r'proposal_generator\.anchor_generator\.cell_anchors\.\d+': (
        'anchors, which mmdet computes'
    ),
}

# ImageNet's standard deviations in BGR, as detectron2's 9x recipe gives them.
IMAGENET_BGR_STD = (57.375, 57.12, 58.395)

_LAYERS = {
    'backbone.conv1': 'backbone.bottom_up.stem.conv1',
    'backbone.gn1': 'backbone.bottom_up.stem.conv1.norm',
    'rpn_head.rpn_conv': 'proposal_generator.rpn_head.conv',
    'rpn_head.rpn_cls': 'proposal_generator.rpn_head.objectness_logits',
    'rpn_head.rpn_reg': 'proposal_generator.rpn_head.anchor_deltas',
    'roi_head.bbox_head.shared_fcs.0': 'roi_heads.box_head.fc1',
    'roi_head.bbox_head.fc_cls': 'roi_heads.box_predictor.cls_score',
    'roi_head.bbox_head.fc_reg': 'roi_heads.box_predictor.bbox_pred',
    'roi_head.mask_head.upsample': 'roi_heads.mask_head.deconv',
    'roi_head.mask_head.conv_logits': 'roi_heads.mask_head.predictor',
}
# A list of mmdet's: its name in detectron2 and the number of its first item.
_LISTS = {
    'neck.lateral_convs': ('backbone.fpn_lateral', 2),
    'neck.fpn_convs': ('backbone.fpn_output', 2),
    'roi_head.bbox_head.shared_convs': ('roi_heads.box_head.conv', 1),
    'roi_head.mask_head.convs': ('roi_heads.mask_head.mask_fcn', 1),
}


def detectron2_name(name: str) -> str:
    """The name in detectron2 of a weight of mmdet's detector."""
    layer, _, parameter = name.rpartition('.')
    if layer in _LAYERS:
        return f'{_LAYERS[layer]}.{parameter}'
    if match := re.fullmatch(r'backbone\.layer(\d)\.(\d+)\.(conv|gn)(\d)', layer):
        stage, block, kind, index = match.groups()
        norm = '.norm' if kind == 'gn' else ''
        place = f'backbone.bottom_up.res{int(stage) + 1}.{block}.conv{index}'
        return f'{place}{norm}.{parameter}'
    if match := re.fullmatch(r'backbone\.layer(\d)\.0\.downsample\.([01])', layer):
        norm = '.norm' if match[2] == '1' else ''
        stage = int(match[1]) + 1
        return f'backbone.bottom_up.res{stage}.0.shortcut{norm}.{parameter}'
    place, index, kind = layer.rsplit('.', 2)
    prefix, first = _LISTS[place]
    norm = '.norm' if kind == 'gn' else ''
    return f'{prefix}{int(index) + first}{norm}.{parameter}'


def convert(content: Any) -> Conversion:
    """A detectron2 `.pkl` or `.pth`, `{'model': …}` or the weights themselves.

    Raises:
        UserError: if it is not a Mask R-CNN with FPN and GN in every place.
    """
    given = unwrap(content, 'model')
    lookup = shape_lookup(given, detectron2_name)
    backbone = recognise_resnet(lambda name: lookup(f'backbone.{name}'))
    detector = backbone and recognise_detector(lookup, backbone)
    if detector is None:
        raise UserError(
            'holds no detector of detectron2 with a ResNet and class scores (no '
            'backbone.bottom_up.res2.0.conv1.weight or '
            'roi_heads.box_predictor.cls_score.weight)'
        )
    state, skipped = consume(
        given,
        detector.shapes(),
        detectron2_name,
        skipped=SKIPPED,
        what=f"detectron2's {describe(detector)}",
    )
    result = Conversion(state, detector, skipped=skipped, notes=[LICENCE])
    result.preprocessing, note = _pixels(given)
    if note:
        result.notes.append(note)
    scaled = result.preprocessing.std == IMAGENET_BGR_STD
    depth = backbone.depth
    if depth in (50, 101) and detector.with_mask:
        of_config = Preprocessing(CAFFE_MEAN)
        if scaled:
            of_config = Preprocessing(CAFFE_MEAN, IMAGENET_BGR_STD)
            name = f'scratch/mask-rcnn_r{depth}-scratch_fpn_gn-all_8xb8-ms-9x'
        elif depth == 50:
            name = 'gn/mask-rcnn_r50_fpn_gn-all_ms-3x'
        else:
            name = 'gn/mask-rcnn_r101_fpn_gn-all_3x'
        result.config = f'configs/{name}_coco.py'
        result.options = config_options(result.preprocessing, of_config)
    return result


def to_detectron2(state: dict[str, Tensor], model: Detector) -> dict[str, Tensor]:
    """The weights of mmdet's detector under detectron2's names, bit for bit.

    Raises:
        UserError: if a weight is missing, left over or of another shape.
    """
    shapes = model.shapes()
    back = {detectron2_name(name): name for name in shapes}
    renamed, _ = consume(
        state,
        {name: shapes[target] for name, target in back.items()},
        back.__getitem__,
        what=describe(model),
    )
    return renamed


def _pixels(given: dict[str, Any]) -> tuple[Preprocessing, str | None]:
    """The pixel statistics in the file, or detectron2's usual ones with a note."""
    if 'pixel_mean' in given and 'pixel_std' in given:
        mean, std = (
            tuple(round(float(v), 4) for v in as_tensor(given[name], name).flatten())
            for name in ('pixel_mean', 'pixel_std')
        )
        return Preprocessing(mean, std), None
    return Preprocessing(CAFFE_MEAN), (
        'the file holds no pixel_std; 1 is taken, as in the 3x recipes. The 9x recipe '
        f'from scratch needs {list(IMAGENET_BGR_STD)}'
    )

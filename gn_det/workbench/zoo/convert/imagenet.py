"""ResNets of torchvision and timm, whose modules carry the same names in both."""

from __future__ import annotations

from typing import Any

from gn_det.workbench.errors import UserError
from gn_det.workbench.zoo.convert.consuming import consume, shape_lookup
from gn_det.workbench.zoo.convert.conversion import (
    IMAGENET,
    Conversion,
    describe,
    unwrap,
)
from gn_det.workbench.zoo.convert.layout import recognise_resnet

SKIPPED = {
    r'fc\.(weight|bias)': 'the ImageNet classifier',
    r'(.*\.)?num_batches_tracked': 'batches counted by Batch Norm',
}


def imagenet_name(name: str) -> str:
    """The name in torchvision and timm, who call a norm `bn` whichever it is."""
    parts = name.split('.')
    return '.'.join(f'bn{p[2:]}' if p in ('gn1', 'gn2', 'gn3') else p for p in parts)


def convert(content: Any) -> Conversion:
    """A ResNet or ResNeXt with a 7×7 stem, with Batch Norm or Group Norm.

    Raises:
        UserError: if it is anything else.
    """
    given = unwrap(content, 'state_dict_ema', 'state_dict', 'model')
    norm = 'bn' if 'bn1.running_mean' in given else 'gn'
    lookup = shape_lookup(given, imagenet_name)
    backbone = recognise_resnet(lookup, norm)
    if backbone is None:
        raise UserError(
            'holds no ResNet of torchvision or timm (no layer1.0.conv1.weight)'
        )
    state, skipped = consume(
        given,
        backbone.shapes(),
        imagenet_name,
        skipped=SKIPPED,
        what=f'the weights of {describe(backbone)} with a 7×7 stem',
    )
    result = Conversion(state, backbone, preprocessing=IMAGENET, skipped=skipped)
    if backbone.depth == 50:
        result.config = 'configs/gn/mask-rcnn_r50-contrib_fpn_gn-all_2x_coco.py'
    elif backbone.depth == 101:
        result.config = 'configs/gn/mask-rcnn_r101_fpn_gn-all_2x_coco.py'
        result.options = {
            f'model.data_preprocessor.{key}': value
            for key, value in IMAGENET.as_config().items()
        }
    return result

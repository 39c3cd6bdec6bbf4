"""Weights that a model starts from, and those with Group Norm to use instead."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

_DETECTRON = (
    'as in configs/gn: BGR pixels, mean (103.53, 116.28, 123.675), std 1, '
    "style='pytorch'"
)
_JHU = "as in configs/gn+ws, with conv_cfg=dict(type='ConvWS')"
# By class and depth, with what has to go with it.
_GROUP_NORM = {
    ('ResNet', 50): ('open-mmlab://detectron/resnet50_gn', _DETECTRON),
    ('ResNet', 101): ('open-mmlab://detectron/resnet101_gn', _DETECTRON),
    ('ResNeXt', 50): ('open-mmlab://jhu/resnext50_32x4d_gn_ws', _JHU),
    ('ResNeXt', 101): ('open-mmlab://jhu/resnext101_32x4d_gn_ws', _JHU),
}


def checkpoints_of(init_cfg: Any) -> Iterator[str]:
    """The addresses and files that an `init_cfg`, or several, load."""
    if isinstance(init_cfg, (list, tuple)):
        for one in init_cfg:
            yield from checkpoints_of(one)
    elif isinstance(init_cfg, Mapping) and 'checkpoint' in init_cfg:
        # Of the initialisers only the one of pretrained weights has one.
        yield str(init_cfg['checkpoint'])


def is_public(checkpoint: str) -> bool:
    """Whether an address is one of the models that others publish."""
    return '://' in checkpoint and not checkpoint.startswith('file://')


def says_group_norm(checkpoint: str) -> bool:
    """Whether a name has `gn` among its words, as those of Group Norm models do."""
    return 'gn' in re.split(r'[^a-z0-9]+', checkpoint.lower())


def instead(module: nn.Module | None) -> str:
    """What a module with Group Norm can start from."""
    kind = type(module).__name__
    found = _GROUP_NORM.get((kind, getattr(module, 'depth', None)))
    own = (
        'gn-det convert FILE START.pth --from FORMAT --norm gn makes a start of a file '
        'with Batch Norm'
    )
    if found is None:
        return f'the zoo has no Group Norm backbone of its kind; {own}'
    checkpoint, conditions = found
    return f'the Group Norm backbone is {checkpoint} ({conditions}); {own}'

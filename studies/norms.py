"""The norms that the studies compare, under short names."""

from __future__ import annotations

import re

from mmengine.registry import MODELS
from torch import nn

import gn_det  # noqa: F401  registers FusedGN

_GROUP_NORM = re.compile(r'gn-([gc])(\d+)')


@MODELS.register_module('FrozenStatisticsBN')
class FrozenBatchNorm(nn.BatchNorm2d):
    """BN whose statistics never move: the BN* of arXiv 1803.08494, section 4.2.

    A detector takes them from a pretrained backbone. From scratch they stay mean 0 and
    variance 1, which leaves the scale and shift of every channel to be learned. mmdet's
    `FrozenBN` learns none of them, so from scratch it would leave its convolutions
    without even a bias.
    """

    _abbr_ = 'bn'

    def train(self, mode: bool = True) -> FrozenBatchNorm:
        """Stay in evaluation mode."""
        return super().train(False)


def norm_cfg(name: str) -> dict:
    """The config of `bn`, `frozen-bn`, `gn-gN` (N groups) or `gn-cN` (N channels each).

    One group is Layer Norm as the paper has it, over C, H and W; one channel per group
    is Instance Norm.

    Raises:
        ValueError: for another name.
    """
    if name == 'bn':
        return dict(type='BN', requires_grad=True)
    if name == 'frozen-bn':
        return dict(type='FrozenStatisticsBN', requires_grad=True)
    match = _GROUP_NORM.fullmatch(name)
    if match is None:
        raise ValueError(f'unknown norm {name!r}')
    size = {'g': 'num_groups', 'c': 'channels_per_group'}[match[1]]
    return dict(type='FusedGN', **{size: int(match[2])}, requires_grad=True)

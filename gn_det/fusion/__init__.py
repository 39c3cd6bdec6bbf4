"""Fusion: norms of a built model take in the activation and addition behind them."""

from gn_det.fusion.calls import (
    add_behind,
    kind_of,
    norm_act,
    norm_add,
    norm_add_act,
    norm_add_relu,
    norm_relu,
)
from gn_det.fusion.core import FusedModule, digest, register
from gn_det.fusion.report import FusionReport
from gn_det.fusion.transform import fuse, unfuse

__all__ = [
    'FusedModule',
    'FusionReport',
    'add_behind',
    'digest',
    'fuse',
    'kind_of',
    'norm_act',
    'norm_add',
    'norm_add_act',
    'norm_add_relu',
    'norm_relu',
    'register',
    'unfuse',
]

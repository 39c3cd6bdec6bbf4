"""Fusion: norms of a built model take in the activation and addition behind them."""

from gn_det.fusion.calls import (
    kind_of,
    norm_act,
    norm_add,
    norm_add_act,
    norm_add_relu,
    norm_relu,
)
from gn_det.fusion.core import FusedModule, digest, register
from gn_det.fusion.report import FusionReport
from gn_det.fusion.rewriting import Rewritten
from gn_det.fusion.transform import fuse, unfuse
from gn_det.fusion.waiting import add_behind

__all__ = [
    'FusedModule',
    'FusionReport',
    'Rewritten',
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

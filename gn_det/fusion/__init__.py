"""Fusion: the norms of a built model take the ReLU and the addition behind them in."""

from gn_det.fusion.report import FusionReport
from gn_det.fusion.transform import fuse, unfuse

__all__ = ['FusionReport', 'fuse', 'unfuse']

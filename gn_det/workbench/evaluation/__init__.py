"""COCO evaluation; registers `CocoAPMetric`."""

from gn_det.workbench.evaluation.coco_ap import CocoAPMetric

__all__ = ['CocoAPMetric']

"""COCO evaluation and the pictures of a run; registers `CocoAPMetric`."""

from gn_det.workbench.evaluation.coco_ap import CocoAPMetric

__all__ = ['CocoAPMetric']

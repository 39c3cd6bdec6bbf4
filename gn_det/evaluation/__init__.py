"""COCO evaluation and the pictures of a run; registers `CocoAPMetric`."""

from gn_det.evaluation.coco_ap import CocoAPMetric

__all__ = ['CocoAPMetric']

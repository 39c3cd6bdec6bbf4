# mmdet's COCO instance segmentation; an evaluation without a single detection gives
# 0 AP instead of no figures.
_base_ = 'mmdet::_base_/datasets/coco_instance.py'

val_evaluator = dict(type='CocoAPMetric')
test_evaluator = dict(type='CocoAPMetric')

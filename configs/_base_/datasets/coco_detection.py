# mmdet's COCO detection, evaluated like coco_instance.py.
_base_ = 'mmdet::_base_/datasets/coco_detection.py'

val_evaluator = dict(type='CocoAPMetric')
test_evaluator = dict(type='CocoAPMetric')

_base_ = [
    '../_base_/models/faster-rcnn_r50_fpn_gn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_2x.py',
    'mmdet::_base_/default_runtime.py',
]

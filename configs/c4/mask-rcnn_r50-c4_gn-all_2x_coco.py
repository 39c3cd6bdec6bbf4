_base_ = [
    '../_base_/models/mask-rcnn_r50-c4_gn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/schedule_2x.py',
    'mmdet::_base_/default_runtime.py',
]

_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn_gn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/schedule_3x_norm-decay.py',
    'mmdet::_base_/default_runtime.py',
]

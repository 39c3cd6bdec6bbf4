_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn_gn-ws.py',
    '../_base_/datasets/coco_instance.py',
    'mmdet::_base_/schedules/schedule_2x.py',
    'mmdet::_base_/default_runtime.py',
]

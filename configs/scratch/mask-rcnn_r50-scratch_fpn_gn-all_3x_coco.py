_base_ = [
    '../_base_/models/mask-rcnn_r50-scratch_fpn_gn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/schedule_3x.py',
    '../_base_/scratch_runtime.py',
]

# GN in neck and heads over a backbone of frozen BN, as in PaddleDetection's configs/gn
# (8 images and a rate of 0.01 there, 16 and 0.02 here).
_base_ = [
    '../_base_/models/mask-rcnn_r50-bn_fpn.py',
    '../_base_/datasets/coco_instance_ms.py',
    '../_base_/schedules/schedule_2x.py',
    'mmdet::_base_/default_runtime.py',
]

model = dict(
    type='FusedMaskRCNN',
    neck=dict(norm_cfg=_base_.group_norm),
    roi_head=dict(
        bbox_head=_base_.box_head, mask_head=dict(norm_cfg=_base_.group_norm)
    ),
)

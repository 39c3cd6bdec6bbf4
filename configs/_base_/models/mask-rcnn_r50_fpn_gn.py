# Mask R-CNN R-50 FPN with Group Norm in backbone, neck and both heads
# (arXiv 1803.08494, section 4.2): mmdet's model with four norm slots filled.
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py', '../group_norm.py']

model = dict(
    type='FusedMaskRCNN',
    data_preprocessor=_base_.detectron_pixels,
    backbone=dict(norm_cfg=_base_.group_norm, init_cfg=_base_.detectron_r50),
    neck=dict(norm_cfg=_base_.group_norm),
    roi_head=dict(
        bbox_head=_base_.box_head, mask_head=dict(norm_cfg=_base_.group_norm)
    ),
)

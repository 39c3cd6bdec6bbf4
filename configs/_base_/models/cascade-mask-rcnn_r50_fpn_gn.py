# Cascade Mask R-CNN R-50 FPN with Group Norm in backbone, neck and all four heads.
_base_ = ['mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py', '../group_norm.py']

model = dict(
    type='FusedCascadeRCNN',
    data_preprocessor=_base_.detectron_pixels,
    backbone=dict(norm_cfg=_base_.group_norm, init_cfg=_base_.detectron_r50),
    neck=dict(norm_cfg=_base_.group_norm),
    roi_head=dict(
        bbox_head=[
            dict(head, **_base_.box_head) for head in _base_.model.roi_head.bbox_head
        ],
        mask_head=dict(norm_cfg=_base_.group_norm),
    ),
)

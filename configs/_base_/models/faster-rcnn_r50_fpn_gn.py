# Faster R-CNN R-50 FPN with Group Norm in backbone, neck and box head.
_base_ = ['mmdet::_base_/models/faster-rcnn_r50_fpn.py', '../group_norm.py']

model = dict(
    type='FusedFasterRCNN',
    data_preprocessor=_base_.detectron_pixels,
    backbone=dict(norm_cfg=_base_.group_norm, init_cfg=_base_.detectron_r50),
    neck=dict(norm_cfg=_base_.group_norm),
    roi_head=dict(bbox_head=_base_.box_head),
)

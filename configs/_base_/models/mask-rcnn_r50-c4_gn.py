# Mask R-CNN R-50 C4 with Group Norm in all five stages (arXiv 1803.08494, table 4). The
# fifth is the box and mask head; there are no other convolutions with a norm.
_base_ = ['mmdet::_base_/models/mask-rcnn_r50-caffe-c4.py', '../group_norm.py']

stages = dict(
    style='pytorch', norm_cfg=_base_.group_norm, init_cfg=_base_.detectron_r50
)
model = dict(
    type='FusedMaskRCNN',
    backbone=stages,
    roi_head=dict(shared_head=stages),
)

# Weight Standardization (arXiv 1903.10520) in every convolution that a norm follows.
_base_ = './mask-rcnn_r50_fpn_gn.py'

conv_cfg = dict(type='ConvWS')
model = dict(
    data_preprocessor=_base_.imagenet_pixels,
    backbone=dict(
        conv_cfg=conv_cfg, init_cfg=dict(checkpoint='open-mmlab://jhu/resnet50_gn_ws')
    ),
    neck=dict(conv_cfg=conv_cfg),
    roi_head=dict(bbox_head=dict(conv_cfg=conv_cfg), mask_head=dict(conv_cfg=conv_cfg)),
)

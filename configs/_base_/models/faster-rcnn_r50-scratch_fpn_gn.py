# Faster R-CNN likewise; see mask-rcnn_r50-scratch_fpn_gn.py for the reasons.
_base_ = './faster-rcnn_r50_fpn_gn.py'

model = dict(
    data_preprocessor=_base_.imagenet_pixels,
    backbone=dict(frozen_stages=-1, zero_init_residual=False, init_cfg=None),
)

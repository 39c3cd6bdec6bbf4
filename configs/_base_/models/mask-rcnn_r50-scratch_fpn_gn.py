# Mask R-CNN R-50 FPN with Group Norm, from random weights (arXiv 1811.08883): nothing
# is frozen, and the last norm of a block starts at 1, because starting it at 0 hurts
# GN models trained from scratch (detectron2, modeling/backbone/resnet.py).
_base_ = './mask-rcnn_r50_fpn_gn.py'

model = dict(
    data_preprocessor=_base_.imagenet_pixels,
    backbone=dict(frozen_stages=-1, zero_init_residual=False, init_cfg=None),
)

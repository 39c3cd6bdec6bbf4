# The backbone that @thangvubk trained for mmdetection, on RGB images.
_base_ = './mask-rcnn_r50_fpn_gn.py'

model = dict(
    data_preprocessor=_base_.imagenet_pixels,
    backbone=dict(init_cfg=dict(checkpoint='open-mmlab://contrib/resnet50_gn')),
)

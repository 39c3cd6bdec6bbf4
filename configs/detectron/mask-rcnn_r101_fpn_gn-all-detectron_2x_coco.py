_base_ = [
    './mask-rcnn_r50_fpn_gn-all-detectron_2x_coco.py',
    '../_base_/backbones/detectron_r101.py',
]

model = dict(backbone=_base_.backbone)

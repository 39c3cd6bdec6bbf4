_base_ = [
    './mask-rcnn_r50_fpn_gn-ws-all_20-23-24e_coco.py',
    '../_base_/backbones/jhu_x101-32x4d_gn-ws.py',
]

model = dict(backbone=_base_.backbone)

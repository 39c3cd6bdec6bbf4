_base_ = [
    './faster-rcnn_r50_fpn_gn-ws-all_1x_coco.py',
    '../_base_/backbones/jhu_r101_gn-ws.py',
]

model = dict(backbone=_base_.backbone)

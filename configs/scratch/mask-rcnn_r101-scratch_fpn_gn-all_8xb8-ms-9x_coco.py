_base_ = './mask-rcnn_r50-scratch_fpn_gn-all_8xb8-ms-9x_coco.py'

model = dict(backbone=dict(depth=101))

# arXiv 1803.08494, table 5, row 1: GN's box head without GN.
_base_ = './mask-rcnn_r50-bn_fpn_2x_coco.py'

model = dict(roi_head=dict(bbox_head=dict(_base_.box_head, norm_cfg=None)))

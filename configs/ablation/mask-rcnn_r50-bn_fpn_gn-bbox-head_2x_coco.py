# arXiv 1803.08494, table 5, row 2: GN in the box head only.
_base_ = './mask-rcnn_r50-bn_fpn_2x_coco.py'

model = dict(type='FusedMaskRCNN', roi_head=dict(bbox_head=_base_.box_head))

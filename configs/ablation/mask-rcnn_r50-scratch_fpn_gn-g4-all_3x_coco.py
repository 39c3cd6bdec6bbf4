# 4 groups (arXiv 1803.08494, table 3, upper row).
_base_ = '../scratch/mask-rcnn_r50-scratch_fpn_gn-all_3x_coco.py'

norm_cfg = dict(num_groups=4)
model = dict(
    backbone=dict(norm_cfg=norm_cfg),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(bbox_head=dict(norm_cfg=norm_cfg), mask_head=dict(norm_cfg=norm_cfg)),
)

# One channel per group: Instance Norm (arXiv 1803.08494, figure 2).
_base_ = '../scratch/mask-rcnn_r50-scratch_fpn_gn-all_3x_coco.py'

norm_cfg = dict(num_groups=None, channels_per_group=1)
model = dict(
    backbone=dict(norm_cfg=norm_cfg),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(bbox_head=dict(norm_cfg=norm_cfg), mask_head=dict(norm_cfg=norm_cfg)),
)

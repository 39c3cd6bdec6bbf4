# BN*: Batch Norm whose statistics, scale and shift stay as pretraining left them
# (arXiv 1803.08494, section 4.2). mmdet's own model trains scale and shift.
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py', '../group_norm.py']

model = dict(backbone=dict(norm_cfg=dict(requires_grad=False)))

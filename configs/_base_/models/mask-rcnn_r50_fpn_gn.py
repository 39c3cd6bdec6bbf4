# Mask R-CNN R-50 FPN with Group Norm in backbone, neck and both heads
# (arXiv 1803.08494, section 4.2): mmdet's model with four norm slots filled.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

custom_imports = dict(
    imports=['gn_det', 'gn_det.evaluation'], allow_failed_imports=False
)
norm_cfg = dict(type='FusedGN', num_groups=32, requires_grad=True)

model = dict(
    # Detectron's ResNet-50-GN (weights CC BY-SA 3.0) saw BGR images, a mean and no std.
    data_preprocessor=dict(
        mean=[103.530, 116.280, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False
    ),
    backbone=dict(
        norm_cfg=norm_cfg,
        init_cfg=dict(
            type='Pretrained', checkpoint='open-mmlab://detectron/resnet50_gn'
        ),
    ),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(
            type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=norm_cfg
        ),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)

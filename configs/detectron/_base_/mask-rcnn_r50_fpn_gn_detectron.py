# Mask R-CNN R-50 FPN with GN as Detectron computes it: boxes x2 - x1 + 1 pixels wide,
# its anchors, RoIAlign without the half-pixel shift, its mean. For weights converted by
# `gn-det convert model_final.pkl DST.pth --from detectron`.
_base_ = '../../_base_/models/mask-rcnn_r50_fpn_gn.py'

roi_extractor = dict(
    type='DetectronRoIExtractor', roi_layer=dict(sampling_ratio=2, aligned=False)
)

model = dict(
    data_preprocessor=dict(mean=[102.9801, 115.9465, 122.7717]),
    rpn_head=dict(
        type='DetectronRPNHead',
        anchor_generator=dict(type='DetectronAnchorGenerator'),
        bbox_coder=dict(type='DetectronBBoxCoder'),
        loss_bbox=dict(type='SmoothL1Loss', beta=1 / 9, loss_weight=1.0),
    ),
    roi_head=dict(
        type='DetectronRoIHead',
        bbox_roi_extractor=roi_extractor,
        bbox_head=dict(
            type='DetectronBBoxHead',
            bbox_coder=dict(type='DetectronBBoxCoder'),
            loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=1.0),
        ),
        mask_roi_extractor=roi_extractor,
        mask_head=dict(type='DetectronMaskHead'),
    ),
    # Detectron leaves out anchors that cross the border (RPN_STRADDLE_THRESH 0) and
    # adds the pixel in NMS too; its RPN head filters small boxes itself.
    train_cfg=dict(
        rpn=dict(allowed_border=0),
        rpn_proposal=dict(nms=dict(offset=1), min_bbox_size=-1),
    ),
    test_cfg=dict(
        rpn=dict(nms=dict(offset=1), min_bbox_size=-1), rcnn=dict(nms=dict(offset=1))
    ),
)

"""Detectron's final boxes, decoded at the size of the original image."""

from __future__ import annotations

import torch
from mmdet.models.roi_heads.bbox_heads import Shared4Conv1FCBBoxHead
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor


@MODELS.register_module()
class DetectronBBoxHead(Shared4Conv1FCBBoxHead):
    """The 4conv1fc head with the test of `detectron/core/test.py`.

    RoIs are divided by the scale of the image *before* decoding, clipping and NMS.
    That is not the same as scaling decoded boxes: one pixel is added to sizes at the
    original scale.
    """

    def _predict_by_feat_single(
        self,
        roi: Tensor,
        cls_score: Tensor,
        bbox_pred: Tensor,
        img_meta: dict,
        rescale: bool = False,
        rcnn_test_cfg: ConfigDict | None = None,
    ) -> InstanceData:
        if rescale:
            scale = roi.new_tensor(img_meta['scale_factor']).repeat(2)
            roi = torch.cat([roi[:, :1], roi[:, 1:] / scale], dim=1)
            img_meta = {**img_meta, 'img_shape': img_meta['ori_shape']}
        return super()._predict_by_feat_single(
            roi, cls_score, bbox_pred, img_meta, False, rcnn_test_cfg
        )

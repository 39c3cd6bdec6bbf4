"""Detectron's proposals from the RPN's maps."""

from __future__ import annotations

from typing import Any

from mmdet.models.dense_heads import RPNHead
from mmengine.registry import MODELS
from mmengine.structures import InstanceData


@MODELS.register_module()
class DetectronRPNHead(RPNHead):
    """mmdet's RPN head with the proposals of `detectron/ops/generate_proposals.py`.

    In testing Detectron clips proposals to the padded image, not to the image (its
    `utils/blob.py` says so and keeps it for the sake of published results), and it
    drops those less than one pixel wide or high. In training it clips to the image.
    """

    def _predict_by_feat_single(
        self, *args: Any, img_meta: dict, **kwargs: Any
    ) -> InstanceData:
        if not self.training and 'batch_input_shape' in img_meta:
            img_meta = {**img_meta, 'img_shape': img_meta['batch_input_shape']}
        return super()._predict_by_feat_single(*args, img_meta=img_meta, **kwargs)

    def _bbox_post_process(
        self, results: InstanceData, *args: Any, **kwargs: Any
    ) -> InstanceData:
        # Corners of a box one pixel wide are equal; mmdet's own filter would drop it.
        boxes = results.bboxes
        whole = (boxes[:, 2:] >= boxes[:, :2]).all(dim=1)
        return super()._bbox_post_process(results[whole], *args, **kwargs)

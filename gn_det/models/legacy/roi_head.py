"""Detectron's order of boxes and masks in testing, and the pixel added at the end."""

from __future__ import annotations

from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.utils import empty_instances
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox2roi
from mmdet.utils import InstanceList
from mmengine.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class DetectronRoIHead(StandardRoIHead):
    """mmdet's RoI head with the test of `detectron/core/test.py`.

    Boxes are decoded at the original scale (`DetectronBBoxHead`), mask RoIs are these
    boxes times the scale, masks are pasted into them (`DetectronMaskHead`). Then x2 and
    y2 gain one pixel: up to here a box's last pixel belongs to it, while mmdet and COCO
    count x2 − x1. Detectron does the same as it writes COCO's (x, y, w, h), with
    w = x2 − x1 + 1. It is done here, and not in a metric, so that everything that
    reads boxes (metrics, pictures, exported results) reads mmdet's kind.
    """

    def predict(
        self,
        x: tuple[Tensor, ...],
        rpn_results_list: InstanceList,
        batch_data_samples: SampleList,
        rescale: bool = False,
    ) -> InstanceList:
        """Detections of each image; `rescale` gives them at the original scale."""
        metas = [sample.metainfo for sample in batch_data_samples]
        results = self.predict_bbox(
            x, metas, rpn_results_list, rcnn_test_cfg=self.test_cfg, rescale=rescale
        )
        if self.with_mask:
            results = self.predict_mask(x, metas, results, rescale=rescale)
        for result in results:
            result.bboxes[:, 2:] += 1
        return results

    def predict_mask(
        self,
        x: tuple[Tensor, ...],
        batch_img_metas: list[dict],
        results_list: InstanceList,
        rescale: bool = False,
    ) -> InstanceList:
        """Add masks to detections whose boxes are in the coordinates of the output."""
        if not any(len(result) for result in results_list):
            return empty_instances(
                batch_img_metas,
                results_list[0].bboxes.device,
                task_type='mask',
                instance_results=results_list,
                mask_thr_binary=self.test_cfg.mask_thr_binary,
            )
        boxes = [
            result.bboxes * result.bboxes.new_tensor(meta['scale_factor']).repeat(2)
            if rescale
            else result.bboxes
            for result, meta in zip(results_list, batch_img_metas, strict=True)
        ]
        predicted = self._mask_forward(x, bbox2roi(boxes))['mask_preds']
        return self.mask_head.predict_by_feat(
            mask_preds=predicted.split([len(result) for result in results_list]),
            results_list=results_list,
            batch_img_metas=batch_img_metas,
            rcnn_test_cfg=self.test_cfg,
            rescale=rescale,
        )

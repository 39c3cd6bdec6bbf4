"""Ground-truth boxes as Detectron trains on them: the last pixel belongs to the box."""

from __future__ import annotations

from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS


@TRANSFORMS.register_module()
class DetectronGroundTruth(BaseTransform):
    """Move x2 and y2 of ground-truth boxes in by one pixel of the original image.

    mmdet reads COCO's (x, y, w, h) as x2 = x + w, Detectron as x2 = x + max(w − 1, 0),
    before it flips and scales. It stands after Resize and RandomFlip, which turn a box
    over differently in the two conventions.

    Required keys: gt_bboxes (HorizontalBoxes), scale_factor. Modified: gt_bboxes.
    """

    def transform(self, results: dict) -> dict:
        """Shrink `results['gt_bboxes']`; no box gets a negative size."""
        boxes = results['gt_bboxes'].tensor
        pixel = boxes.new_tensor(results['scale_factor'])
        boxes[:, 2:] = (boxes[:, 2:] - pixel).maximum(boxes[:, :2])
        return results

"""Detectron's box regression, in which a box is x2 − x1 + 1 pixels wide."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from mmdet.models.task_modules.coders import BaseBBoxCoder
from mmdet.structures.bbox import HorizontalBoxes, get_box_tensor
from mmengine.registry import TASK_UTILS
from torch import Tensor

# Detectron's BBOX_XFORM_CLIP: a box grows to at most 1000 px from 16.
_MAX_LOG_GROWTH = math.log(1000 / 16)


@TASK_UTILS.register_module()
class DetectronBBoxCoder(BaseBBoxCoder):
    """`bbox_transform` and `bbox_transform_inv` of `detectron/utils/boxes.py`.

    With w = x2 − x1 + 1 and cx = x1 + w/2 (y likewise), deltas of a box (cx, w) to a
    target (cx', w') are

        dx = (cx' − cx) / w / std,  dw = log(w' / w) / std

    and decoding gives x1 = cx' − w'/2, x2 = cx' + w'/2 − 1, then clips x to
    [0, width − 1] and y to [0, height − 1]. Only growth is bounded, not shrinking.
    mmdet's `LegacyDeltaXYWHBBoxCoder` returns this box grown by 0.5 px on each side.

    Args:
        target_means: subtracted from targets; Detectron has none.
        target_stds: 1 / Detectron's weights: (0.1, 0.1, 0.2, 0.2) for (10, 10, 5, 5).
        clip_border: whether decoded boxes are clipped to the image.
        use_box_type: return mmdet's box type instead of a tensor.
    """

    def __init__(
        self,
        target_means: Sequence[float] = (0.0, 0.0, 0.0, 0.0),
        target_stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
        clip_border: bool = True,
        use_box_type: bool = False,
    ) -> None:
        super().__init__(use_box_type=use_box_type)
        self.means = target_means
        self.stds = target_stds
        self.clip_border = clip_border

    def encode(self, bboxes: Tensor, gt_bboxes: Tensor) -> Tensor:
        """Deltas (N, 4) from boxes (N, 4) to targets (N, 4)."""
        centres, sizes = _centres_and_sizes(get_box_tensor(bboxes).float())
        gt_centres, gt_sizes = _centres_and_sizes(get_box_tensor(gt_bboxes).float())
        deltas = torch.cat(
            [(gt_centres - centres) / sizes, torch.log(gt_sizes / sizes)], dim=-1
        )
        return (deltas - deltas.new_tensor(self.means)) / deltas.new_tensor(self.stds)

    def decode(
        self,
        bboxes: Tensor,
        pred_bboxes: Tensor,
        max_shape: Sequence[int] | None = None,
    ) -> Tensor | HorizontalBoxes:
        """Boxes (N, 4 · K) from boxes (N, 4) and deltas (N, 4 · K).

        Args:
            bboxes: the boxes the deltas start from.
            pred_bboxes: K deltas for each of them.
            max_shape: (height, width) of the image to clip to.
        """
        centres, sizes = _centres_and_sizes(get_box_tensor(bboxes))
        deltas = pred_bboxes.reshape(len(pred_bboxes), -1, 4)
        deltas = deltas * deltas.new_tensor(self.stds) + deltas.new_tensor(self.means)
        new_centres = deltas[..., :2] * sizes[:, None] + centres[:, None]
        growth = deltas[..., 2:].clamp(max=_MAX_LOG_GROWTH)
        half = growth.exp() * sizes[:, None] / 2
        decoded = torch.cat([new_centres - half, new_centres + half - 1], dim=-1)
        if self.clip_border and max_shape is not None:
            height, width = max_shape[:2]
            limit = decoded.new_tensor([width, height, width, height]) - 1
            decoded = torch.minimum(decoded, limit).clamp(min=0)
        decoded = decoded.reshape(pred_bboxes.shape)
        return HorizontalBoxes(decoded) if self.use_box_type else decoded


def _centres_and_sizes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Centres and sizes (N, 2) of boxes (N, 4) whose last pixel belongs to them."""
    sizes = boxes[..., 2:] - boxes[..., :2] + 1
    return boxes[..., :2] + sizes / 2, sizes

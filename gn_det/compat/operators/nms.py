"""Non-maximum suppression: `nms` by torchvision, the others in torch.

Boxes are (x1, y1, x2, y2), of width x2 − x1 + offset. The IoU of two boxes is taken as
0 where both are empty (0/0).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision import ops

from gn_det.compat.operators.precision import arithmetic_dtype

# The numbers by which mmcv's `soft_nms` passes its `method`.
_LINEAR, _GAUSSIAN = 1, 2


@torch.no_grad()
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes [N, 4] that stay, by falling score; equal scores by index.

    A box goes if its IoU with one that stays is > `iou_threshold`.
    """
    dtype = arithmetic_dtype(boxes, scores)
    boxes = boxes.to(dtype)
    if offset:
        # torchvision knows no offset; moving the far corner gives the same widths.
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], dim=1)
    # torchvision compares a float32 IoU with a float64 threshold, mmcv with a float32
    # one: with 0.3 as it stands, an IoU of exactly 0.3 would count as larger.
    threshold = iou_threshold if dtype == torch.float64 else np.float32(iou_threshold)
    return ops.nms(boxes, scores.to(dtype), float(threshold))


@torch.no_grad()
def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (https://arxiv.org/abs/1704.04503); returns the indices that stay, [K].

    Again and again the highest score is taken, and the scores of the boxes left are
    multiplied by w(IoU with the box taken):

        method 1 (linear):    1 − IoU where IoU ≥ iou_threshold, else 1
        method 2 (gaussian):  exp(−IoU² / sigma)

    Boxes whose score falls below `min_score` are dropped. The first K rows of `dets`
    [N, 5] receive the boxes taken with their new scores. Equal scores are taken in the
    order of mmcv's CPU code, which depends on the boxes dropped before. The one
    difference to it: two empty boxes have IoU 0 there as well, where mmcv's gaussian
    scores become NaN.
    """
    if method not in (_LINEAR, _GAUSSIAN):
        raise NotImplementedError(
            "soft_nms with method='naive' is not among the operators gn_det supplies: "
            "use type='nms', which does the same, or method='linear' or 'gaussian'."
        )
    dtype = arithmetic_dtype(boxes, scores)
    boxes = boxes.to(dtype)
    scores = scores.to(dtype, copy=True)
    areas = _areas(boxes, offset)
    order = torch.arange(len(boxes), device=boxes.device)
    taken = 0
    while taken < len(order):
        best = taken + int(scores[order[taken:]].argmax())
        order[[taken, best]] = order[[best, taken]]
        current, rest = order[taken], order[taken + 1 :]
        dets[taken, :4] = boxes[current]
        dets[taken, 4] = scores[current]
        taken += 1

        iou = _iou(boxes[current], areas[current], boxes[rest], areas[rest], offset)
        if method == _GAUSSIAN:
            weight = torch.exp(-(iou * iou) / sigma)
        else:
            weight = torch.where(iou >= iou_threshold, 1 - iou, 1)
        scores[rest] *= weight
        dropped = scores[rest] < min_score
        if dropped.any():
            order = torch.cat([order[:taken], _fill_from_the_end(rest, dropped)])
    return order


@torch.no_grad()
def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of `dets` [N, 5] (box, score): one that NMS keeps, then what it removes.

    A box is removed if its IoU is ≥ `iou_threshold` (`nms`: >). Groups, and the boxes
    within each, come by falling score.
    """
    dets = dets.to(arithmetic_dtype(dets))
    boxes, areas = dets[:, :4], _areas(dets[:, :4], offset=0)
    left = dets[:, 4].argsort(descending=True, stable=True)
    groups = []
    while len(left):
        kept, rest = left[0], left[1:]
        iou = _iou(boxes[kept], areas[kept], boxes[rest], areas[rest], offset=0)
        matched = iou >= iou_threshold
        groups.append([int(kept), *rest[matched].tolist()])
        left = rest[~matched]
    return groups


@torch.no_grad()
def line_nms_forward(
    boxes: Tensor, scores: Tensor, thresh: float, top_k: int
) -> list[Tensor]:
    """NMS of lines, for CLRNet (https://arxiv.org/abs/2203.10350).

    A row of `boxes` [N, 5 + P] has its first strip as a part of P − 1 at 2, its length
    in strips at 4, and x at each of P heights from 5 on. A line goes if its mean
    distance in x from one that stays is < `thresh` over the strips both have.

    Returns the indices that stay by falling score, filled up with 0 to [N], their
    number (at most `top_k`), and for each line the number from 1 of the last one that
    stays within `thresh` of it, 0 for none. Both lines of a pair are taken by falling
    score; onedl-mmcv 2.3.6 reads one of them by its place in `boxes`.
    """
    order = scores.argsort(descending=True)
    boxes = boxes.to(arithmetic_dtype(boxes))[order]
    points = boxes.shape[1] - 5
    start = (boxes[:, 2] * (points - 1) + 0.5).int()
    end = (start + boxes[:, 4].int() - 1).clamp(max=points - 1)
    strips = torch.arange(points, device=boxes.device)
    left = torch.ones_like(scores, dtype=torch.bool)
    parents = torch.zeros_like(order)
    kept = []
    for i in range(len(order)):
        if len(kept) == top_k or not left[i]:
            continue
        first, last = start.maximum(start[i]), end.minimum(end[i])
        shared = (strips >= first[:, None]) & (strips <= last[:, None])
        distance = ((boxes[:, 5:] - boxes[i, 5:]).abs() * shared).sum(1)
        near = (distance < thresh * (last - first + 1)) & (last >= first) & (first >= 0)
        near[: i + 1] = False
        near[i] = True
        kept.append(i)
        left &= ~near
        parents[order[near]] = len(kept)
    keep = torch.zeros_like(order)
    keep[: len(kept)] = order[kept]
    return [keep, order.new_tensor(len(kept)), parents]


def _areas(boxes: Tensor, offset: int) -> Tensor:
    width, height = (boxes[:, 2:] - boxes[:, :2] + offset).unbind(1)
    return width * height


def _iou(
    box: Tensor, area: Tensor, boxes: Tensor, areas: Tensor, offset: int
) -> Tensor:
    """IoU of one box [4] with each of `boxes` [N, 4]."""
    top_left = torch.maximum(box[:2], boxes[:, :2])
    bottom_right = torch.minimum(box[2:], boxes[:, 2:])
    width, height = (bottom_right - top_left + offset).clamp(min=0).unbind(1)
    intersection = width * height
    iou = intersection / (area + areas - intersection)
    return torch.where(intersection > 0, iou, 0)


def _fill_from_the_end(items: Tensor, dropped: Tensor) -> Tensor:
    """Remove `dropped` items, each hole being filled with the last item still there.

    That is how mmcv's loop shrinks its arrays; the order decides between equal scores.
    """
    kept = ~dropped
    size = int(kept.sum())
    result = items[:size].clone()
    result[dropped[:size]] = items[size:][kept[size:]].flip(0)
    return result

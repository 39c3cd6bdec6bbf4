"""RoIPool in torch, with mmcv's bins.

torchvision's operator is another function: it rounds the scaled RoI to whole pixels
before dividing it into bins, mmcv rounds only the edges of the bins.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gn_det.compat.operators.precision import arithmetic_dtype


@torch.no_grad()
def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Fill `output` and `argmax` [K, C, pooled_height, pooled_width].

    A RoI (index into N, x1, y1, x2, y2) covers, along x,
    [x1 · scale, (x2 + 1) · scale) and bin i of n the pixels from
    floor(x1 · scale + i · width / n) up to ceil(x1 · scale + (i + 1) · width / n),
    within the feature map. `output` is the maximum of each bin of `input` [N, C, H, W],
    `argmax` its place y · W + x (the first of several). An empty bin gives 0 and −1,
    and so does a RoI of no width or height: mmcv leaves 0 there instead of −1, which
    sends the gradient of such a RoI to pixel (0, 0).
    """
    dtype = arithmetic_dtype(input)
    height, width = input.shape[-2:]
    start = rois[:, 1:3].to(dtype) * spatial_scale
    size = (rois[:, 3:5].to(dtype) + 1) * spatial_scale - start
    left, right = _bins(start[:, 0], size[:, 0], pooled_width, width)
    top, bottom = _bins(start[:, 1], size[:, 1], pooled_height, height)
    sound = (size > 0).all(dim=1)
    filled = (
        sound[:, None, None] & (bottom > top)[:, :, None] & (right > left)[:, None, :]
    )  # [K, pooled_height, pooled_width]

    # Empty bins are pooled over one pixel, whichever, and overwritten in the end.
    left, top = left.clamp(max=width - 1), top.clamp(max=height - 1)
    right, bottom = right.maximum(left + 1), bottom.maximum(top + 1)
    images = rois[:, 0].long().tolist()
    columns = torch.stack([left, right], dim=2).tolist()
    rows = torch.stack([top, bottom], dim=2).tolist()
    for k in sound.nonzero()[:, 0].tolist():
        # The maximum over a bin is one over its columns, then one over its rows; the
        # first of each is the first of the bin in the order of y · W + x.
        first, last = rows[k][0][0], rows[k][-1][1]
        strip = input[images[k], :, first:last]  # [C, rows of the RoI, W]
        by_column = [strip[:, :, x1:x2].max(dim=2) for x1, x2 in columns[k]]
        values = torch.stack([best.values for best in by_column], dim=2)
        xs = torch.stack([best.indices for best in by_column], dim=2) + left[k]
        for i, (y1, y2) in enumerate(rows[k]):
            best = values[:, y1 - first : y2 - first].max(dim=1)  # [C, pooled_width]
            y = best.indices + y1
            x = xs.gather(1, (y - first)[:, None])[:, 0]
            output[k, :, i] = best.values
            argmax[k, :, i] = y * width + x
    output.masked_fill_(~filled[:, None], 0)
    argmax.masked_fill_(~filled[:, None], -1)


@torch.no_grad()
def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Add `grad_output` to `grad_input` [N, C, H, W] at the places `argmax` names.

    Half types are summed in float32.
    """
    dtype = arithmetic_dtype(grad_output)
    total = torch.zeros_like(
        grad_input, dtype=dtype, memory_format=torch.contiguous_format
    )
    planes = total.view(-1, *grad_input.shape[2:])  # [N · C, H, W]
    channels = torch.arange(grad_input.shape[1], device=rois.device)
    plane = rois[:, :1].long() * len(channels) + channels  # [K, C]
    place = plane[:, :, None, None] * planes[0].numel() + argmax
    pooled = argmax >= 0
    planes.view(-1).index_add_(0, place[pooled], grad_output.to(dtype)[pooled])
    grad_input.add_(total)


def _bins(start: Tensor, size: Tensor, bins: int, limit: int) -> tuple[Tensor, Tensor]:
    """First pixel of each bin and the pixel after its last, both [K, bins]."""
    steps = torch.arange(bins + 1, device=start.device)
    # float32 also for float64 tensors: mmcv rounds with floorf and ceilf.
    edges = (steps * (size / bins)[:, None] + start[:, None]).float()
    first = edges[:, :-1].floor().clamp(0, limit).long()
    last = edges[:, 1:].ceil().clamp(0, limit).long()
    return first, last

"""Deformable RoI pooling: RoIAlign whose bins are moved one by one.

Bin (i, j) of a RoI of width w and height h is moved by (γ · w · offset x, γ · h ·
offset y) and averaged over an own grid of sampling points. RoIs of one image with equal
grids are sampled together by `grid_sample`; half types are computed in float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gn_det.compat.operators.differentiate import gradients
from gn_det.compat.operators.precision import arithmetic_dtype


@torch.no_grad()
def deform_roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Fill `output` [K, C, pooled_height, pooled_width] from `input` [N, C, H, W].

    `rois` [K, 5] are (index into N, x1, y1, x2, y2), moved by half a pixel as with
    RoIAlign's `aligned=True`; `offset` [K, 2, pooled_height, pooled_width] are (x, y),
    or empty for none. `sampling_ratio` ≤ 0 takes ceil(bin size) points a side.
    """
    dtype = arithmetic_dtype(input)
    offset = _or_zeros(offset, output)
    pool = _Pool(rois.to(dtype), output.shape[2:], spatial_scale, sampling_ratio, gamma)
    output.copy_(pool(input.to(dtype), offset.to(dtype)))


@torch.no_grad()
def deform_roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Add to `grad_input`, and to `grad_offset` unless that is empty.

    A sampling point beyond the map's edge reads the edge, so moving it changes nothing
    and its offset has no gradient; mmcv gives it the slope that the map has within.
    """
    if not len(rois):
        return
    dtype = arithmetic_dtype(input)
    pool = _Pool(
        rois.to(dtype), grad_output.shape[2:], spatial_scale, sampling_ratio, gamma
    )
    tensors = input.to(dtype), _or_zeros(offset, grad_output).to(dtype)
    by_input, by_offset = gradients(pool, tensors, grad_output.to(dtype))
    grad_input += by_input
    if grad_offset.numel():
        grad_offset += by_offset


class _Pool:
    """The pooled RoIs as a function of the map and the offsets."""

    def __init__(
        self,
        rois: Tensor,
        bins: tuple[int, int],
        scale: float,
        sampling_ratio: int,
        gamma: float,
    ) -> None:
        start, end = (rois[:, 1:] * scale - 0.5).split(2, dim=1)
        self.image = rois[:, :1].long()
        self.start = start  # [K, 2], (x, y) as everywhere here
        self.size = end - start
        self.bin_size = self.size / rois.new_tensor((bins[1], bins[0]))
        self.bins, self.gamma = bins, gamma
        if sampling_ratio > 0:
            self.points = torch.full_like(self.image, sampling_ratio).expand(-1, 2)
        else:
            self.points = self.bin_size.ceil().long().clamp(min=1)
        # With a given ratio mmcv samples RoIs of negative size as well.
        self.empty = ((self.bin_size <= 0) & (sampling_ratio <= 0)).any(1)

    def __call__(self, input: Tensor, offset: Tensor) -> Tensor:
        moved = self.start + self.gamma * self.size * offset.permute(2, 3, 0, 1)
        moved = moved.permute(2, 0, 1, 3)  # [K, bins y, bins x, 2]
        output = input.new_zeros(len(moved), input.shape[1], *self.bins)
        alike, group = torch.cat([self.image, self.points], 1).unique(
            dim=0, return_inverse=True
        )
        for number, (image, across, down) in enumerate(alike.tolist()):
            chosen = (group == number).nonzero()[:, 0]
            starts = moved[chosen][:, :, None, :, None]  # [k, bins y, 1, bins x, 1, 2]
            x = starts[..., 0] + self._steps(chosen, across, axis=0)
            y = starts[..., 1] + self._steps(chosen, down, axis=1)
            # [C, k, bins y, down, bins x, across]
            sampled = _sample(input[image], y, x)
            output[chosen] = sampled.mean((3, 5)).transpose(0, 1)
        return output.masked_fill(self.empty[:, None, None, None], 0)

    def _steps(self, chosen: Tensor, points: int, axis: int) -> Tensor:
        """From a RoI's start to each sampling point, along one axis."""
        bins = self.bins[1 - axis]
        place = torch.arange(bins * points, device=chosen.device) + 0.5
        steps = self.bin_size[chosen, axis, None] * place / points
        shape = (1, 1, bins, points) if axis == 0 else (bins, points, 1, 1)
        return steps.view(-1, *shape)


def _sample(image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Bilinear, the border repeated for one pixel beyond it and 0 further out."""
    y, x = torch.broadcast_tensors(y, x)
    height, width = image.shape[1:]
    outside = (y < -1) | (y > height) | (x < -1) | (x > width)
    # With corners not aligned, grid_sample puts pixel i at (2i + 1) / size − 1.
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    sampled = F.grid_sample(
        image[None],
        grid.view(1, -1, 1, 2),
        padding_mode='border',
        align_corners=False,
    )
    return sampled.view(len(image), *y.shape).masked_fill(outside, 0)


def _or_zeros(offset: Tensor, pooled: Tensor) -> Tensor:
    if offset.numel():
        return offset
    return pooled.new_zeros(len(pooled), 2, *pooled.shape[2:])

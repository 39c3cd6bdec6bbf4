"""Multi-scale deformable attention by `grid_sample`, as mmcv's own CPU form has it.

mmcv's layer takes that form (`multi_scale_deformable_attn_pytorch`) on the CPU and for
bfloat16; these operators answer on CUDA. They work level by level, so that only one
level's samples are held at a time. Half types are computed in float32. `im2col_step`
divides mmcv's work without changing the result and is ignored; so are the starts of the
levels, which follow from their shapes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gn_det.compat.operators.differentiate import gradients
from gn_det.compat.operators.precision import arithmetic_dtype


@torch.no_grad()
def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Σ over levels and points of weight · value at the location; [N, Q, M · D].

    `value` [N, Σ H·W, M, D] holds the levels of `value_spatial_shapes` [L, 2] (H, W)
    one after the other, for M heads. `sampling_locations` [N, Q, M, L, P, 2] are (x, y)
    as parts of a level's width and height, `attention_weights` [N, Q, M, L, P]. Values
    outside a level count as 0.
    """
    dtype = arithmetic_dtype(value)
    shapes = value_spatial_shapes.tolist()
    levels = zip(
        shapes,
        value.to(dtype).split([height * width for height, width in shapes], dim=1),
        sampling_locations.to(dtype).unbind(3),
        attention_weights.to(dtype).unbind(3),
        strict=True,
    )
    output = sum(_attend(*tensors, shape) for shape, *tensors in levels)
    return output.to(value.dtype)


@torch.no_grad()
def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Add to the three gradients, which have the shapes of what they belong to."""
    dtype = arithmetic_dtype(value)
    grad_output = grad_output.to(dtype)
    start = 0
    for level, (height, width) in enumerate(value_spatial_shapes.tolist()):
        places = slice(start, start + height * width)
        start = places.stop
        tensors = (
            value[:, places].to(dtype),
            sampling_locations[:, :, :, level].to(dtype),
            attention_weights[:, :, :, level].to(dtype),
        )
        by_value, by_location, by_weight = gradients(
            lambda *leaves, shape=(height, width): _attend(*leaves, shape),
            tensors,
            grad_output,
        )
        grad_value[:, places] += by_value
        grad_sampling_loc[:, :, :, level] += by_location
        grad_attn_weight[:, :, :, level] += by_weight


def _attend(
    value: Tensor, locations: Tensor, weights: Tensor, shape: tuple[int, int]
) -> Tensor:
    """One level: `value` [N, H·W, M, D], `locations` [N, Q, M, P, 2]; [N, Q, M · D]."""
    images, _, heads, channels = value.shape
    queries = locations.shape[1]
    maps = value.permute(0, 2, 3, 1).reshape(images * heads, channels, *shape)
    grid = 2 * locations.transpose(1, 2).flatten(0, 1) - 1
    samples = F.grid_sample(maps, grid, align_corners=False)  # [N·M, D, Q, P]
    weights = weights.transpose(1, 2).flatten(0, 1)[:, None]
    output = (samples * weights).sum(-1)  # [N·M, D, Q]
    return output.view(images, heads * channels, queries).transpose(1, 2)

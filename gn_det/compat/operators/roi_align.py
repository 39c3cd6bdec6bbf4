"""RoIAlign by torchvision, whose sampling grid is mmcv's.

Both take `sampling_ratio` ≤ 0 as an adaptive grid of ceil(RoI size / output size)
points per bin, and `aligned=True` as a shift of the RoI by half a pixel; without it
(the legacy form) a RoI is at least one pixel wide and high.
"""

from __future__ import annotations

import torch
import torchvision  # noqa: F401  (registers torch.ops.torchvision)
from torch import Tensor

from gn_det.compat.operators.precision import arithmetic_dtype

# The number by which mmcv's `roi_align` passes `pool_mode='avg'`; 'max' is 0.
_AVERAGE = 1


@torch.no_grad()
def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill `output` [K, C, aligned_height, aligned_width] from `input` [N, C, H, W].

    `rois` [K, 5] are (index into N, x1, y1, x2, y2). Half types are computed in
    float32. `argmax_y` and `argmax_x` belong to max pooling and stay as they are.

    Raises:
        NotImplementedError: for max pooling (`pool_mode` 0).
        ValueError: for a RoI of negative size on the CPU with `aligned`, as mmcv does;
            other devices are spared the synchronisation, and the RoI gives no error.
    """
    _require_average(pool_mode)
    if (
        aligned
        and rois.device.type == 'cpu'
        and not (rois[:, 3:] >= rois[:, 1:3]).all()
    ):
        raise ValueError('RoIAlign needs RoIs (index, x1, y1, x2, y2) of size ≥ 0')
    dtype = arithmetic_dtype(input)
    output.copy_(
        torch.ops.torchvision.roi_align(
            input.to(dtype),
            rois.to(dtype),
            spatial_scale,
            aligned_height,
            aligned_width,
            sampling_ratio,
            aligned,
        )
    )


@torch.no_grad()
def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add to `grad_input` [N, C, H, W] the gradient of `roi_align_forward`.

    Half types are summed in float32.

    Raises:
        NotImplementedError: for max pooling (`pool_mode` 0).
    """
    _require_average(pool_mode)
    dtype = arithmetic_dtype(grad_output)
    grad_input.add_(
        torch.ops.torchvision._roi_align_backward(
            grad_output.to(dtype),
            rois.to(dtype),
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    )


def _require_average(pool_mode: int) -> None:
    if pool_mode != _AVERAGE:
        raise NotImplementedError(
            "RoIAlign with pool_mode='max' is not among the operators gn_det supplies "
            "on top of torchvision: use pool_mode='avg', or an mmcv built with its "
            'compiled operators.'
        )

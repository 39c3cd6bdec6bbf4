"""CARAFE, content-aware reassembly of features (https://arxiv.org/abs/1905.02188).

An upsampled pixel is the weighted sum of the k × k pixels around the one it lies in:

    output[c, y, x]
        = Σ_ij masks[g(c), i, j, y, x] · features[c, y/s + i − r, x/s + j − r]

with r = (k − 1) / 2, y/s rounded down, 0 outside the map, and G groups of channels g(c)
that share a mask. The sum runs point by point, so that no k²-fold map is held. Half
types are computed in float32. mmcv's two pairs of operators differ in nothing but
scratch buffers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gn_det.compat.operators.precision import arithmetic_dtype


@torch.no_grad()
def carafe_naive_forward(
    features: Tensor,
    masks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Fill `output` [N, C, sH, sW] from `features` [N, C, H, W].

    `masks` [N, G · k · k, sH, sW] are the weights; `group_size` is G.
    """
    dtype = arithmetic_dtype(features)
    masks = _by_point(masks, kernel_size, group_size, scale_factor).to(dtype)
    padded = _padded(features, kernel_size, group_size).to(dtype)
    total = torch.zeros((), dtype=dtype, device=features.device)
    for point, place in enumerate(_places(padded, kernel_size)):
        total = total + padded[place][..., None, :, None] * masks[:, :, point, None]
    output.copy_(total.view(output.shape))


@torch.no_grad()
def carafe_naive_backward(
    top_grad: Tensor,
    features: Tensor,
    masks: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Add to `bottom_grad` and `mask_grad`, the gradients of features and masks."""
    dtype = arithmetic_dtype(features)
    weights = _by_point(masks, kernel_size, group_size, scale_factor).to(dtype)
    padded = _padded(features, kernel_size, group_size).to(dtype)
    # [N, G, C/G, H, s, W, s], as the masks are without C/G.
    top_grad = top_grad.to(dtype).reshape(*padded.shape[:3], *weights.shape[3:])
    padded_grad, weight_grad = torch.zeros_like(padded), torch.empty_like(weights)
    for point, place in enumerate(_places(padded, kernel_size)):
        pixels = padded[place][..., None, :, None]
        weight_grad[:, :, point] = (top_grad * pixels).sum(2)
        padded_grad[place] += (top_grad * weights[:, :, point, None]).sum((4, 6))
    border = (kernel_size - 1) // 2
    height, width = features.shape[2:]
    inner = padded_grad[..., border : border + height, border : border + width]
    bottom_grad += inner.reshape(features.shape)
    mask_grad += weight_grad.view(masks.shape)


def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """`carafe_naive_forward`; `rfeatures` receives the features for the backward."""
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, kernel_size, group_size, scale_factor)


def carafe_backward(
    top_grad: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rtop_grad: Tensor,
    rbottom_grad_hs: Tensor,
    rbottom_grad: Tensor,
    rmask_grad: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """`carafe_naive_backward`; the other buffers stay as they are."""
    carafe_naive_backward(
        top_grad,
        rfeatures,
        masks,
        bottom_grad,
        mask_grad,
        kernel_size,
        group_size,
        scale_factor,
    )


def _padded(features: Tensor, kernel: int, groups: int) -> Tensor:
    """[N, G, C/G, H + 2r, W + 2r]."""
    return F.pad(features, [(kernel - 1) // 2] * 4).unflatten(1, (groups, -1))


def _by_point(masks: Tensor, kernel: int, groups: int, scale: int) -> Tensor:
    """[N, G, k², H, s, W, s]."""
    height, width = masks.shape[2:]
    return masks.reshape(
        len(masks), groups, kernel**2, height // scale, scale, width // scale, scale
    )


def _places(padded: Tensor, kernel: int) -> list[tuple]:
    """Where each kernel point's pixels lie in the padded map, row by row."""
    height, width = (size - kernel + 1 for size in padded.shape[3:])
    return [
        (..., slice(i, i + height), slice(j, j + width))
        for i in range(kernel)
        for j in range(kernel)
    ]

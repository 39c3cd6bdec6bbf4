"""Deformable convolution, v1 and v2 (modulated), by torchvision.

torchvision's layouts are mmcv's. With G deformable groups and kh × kw kernel points,
`offset` [N, G · 2 · kh · kw, H', W'] holds (y, x) for each point and `mask`
[N, G · kh · kw, H', W'] a factor for each. Points outside the image count as 0. Half
types are computed in float32. `columns` and `ones` are the scratch buffers of mmcv's
code and stay as they are; `im2col_step` divides its work without changing the result
and is ignored.

v2 takes maps of offsets and factors larger than the output, as DyHead hands them, and
reads them as mmcv's kernels do: of each image the first G · 2 · kh · kw · H' · W'
numbers in memory, in the shape above. The rest has no gradient.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
import torchvision  # noqa: F401  (registers torch.ops.torchvision)
from torch import Tensor

from gn_det.compat.operators.precision import arithmetic_dtype


class _Geometry(NamedTuple):
    """The numbers of torchvision's operators, in their order."""

    stride_h: int
    stride_w: int
    pad_h: int
    pad_w: int
    dilation_h: int
    dilation_w: int
    groups: int
    deform_groups: int


class _Gradients(NamedTuple):
    """The results of torchvision's backward operator, in their order."""

    input: Tensor
    weight: Tensor
    offset: Tensor
    mask: Tensor
    bias: Tensor


@torch.no_grad()
def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Fill `output` with Σ_p weight(p) · input(point p of the kernel + offset(p))."""
    geometry = _Geometry(
        dH, dW, padH, padW, dilationH, dilationW, group, deformable_group
    )
    output.copy_(_convolve(input, weight, offset, None, None, geometry))


@torch.no_grad()
def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Add to `gradInput` and overwrite `gradOffset`, as mmcv does."""
    geometry = _Geometry(
        dH, dW, padH, padW, dilationH, dilationW, group, deformable_group
    )
    gradients = _gradients(gradOutput, input, weight, offset, None, geometry)
    gradInput.add_(gradients.input)
    gradOffset.copy_(gradients.offset)


@torch.no_grad()
def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Add `scale` times the gradient to `gradWeight`.

    torchvision computes all gradients at once, so the v1 layer, which asks in two
    calls, pays twice.
    """
    geometry = _Geometry(
        dH, dW, padH, padW, dilationH, dilationW, group, deformable_group
    )
    # The gradient does not depend on the weight; only its shape is read.
    gradients = _gradients(gradOutput, input, gradWeight, offset, None, geometry)
    gradWeight.add_(gradients.weight, alpha=scale)


@torch.no_grad()
def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Fill `output` with Σ_p weight(p) · mask(p) · input(point p + offset(p)) + bias.

    Without `with_bias` the tensor `bias` is empty and not read.
    """
    geometry = _Geometry(
        stride_h,
        stride_w,
        pad_h,
        pad_w,
        dilation_h,
        dilation_w,
        group,
        deformable_group,
    )
    bias = bias if with_bias else None
    offset, mask = (_as_read(maps, output) for maps in (offset, mask))
    output.copy_(_convolve(input, weight, offset, mask, bias, geometry))


@torch.no_grad()
def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Add to the gradients of input, weight and bias; overwrite those of offset, mask.

    That is mmcv's way. Without `with_bias`, `grad_bias` is empty and not written.
    """
    geometry = _Geometry(
        stride_h,
        stride_w,
        pad_h,
        pad_w,
        dilation_h,
        dilation_w,
        group,
        deformable_group,
    )
    offset, mask = (_as_read(maps, grad_output) for maps in (offset, mask))
    gradients = _gradients(grad_output, input, weight, offset, mask, geometry)
    grad_input.add_(gradients.input)
    grad_weight.add_(gradients.weight)
    for whole, read in ((grad_offset, gradients.offset), (grad_mask, gradients.mask)):
        numbers = F.pad(read.flatten(1), (0, whole[0].numel() - read[0].numel()))
        whole.copy_(numbers.view(whole.shape))
    if with_bias:
        grad_bias.add_(gradients.bias)


def _as_read(maps: Tensor, output: Tensor) -> Tensor:
    """The part of `maps` [N, P, …] that mmcv reads for an output [N, C, H', W']."""
    shape = maps.shape[1], *output.shape[2:]
    size = math.prod(shape)
    if maps[0].numel() < size:
        raise ValueError(
            f'deformable convolution needs offsets and masks of at least the '
            f"output's size {list(shape[1:])}, got {list(maps.shape[2:])}"
        )
    return maps.flatten(1)[:, :size].unflatten(1, shape)


def _convolve(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    geometry: _Geometry,
) -> Tensor:
    use_mask = mask is not None
    tensors = _operands(input, weight, offset, mask, bias)
    return torch.ops.torchvision.deform_conv2d(*tensors, *geometry, use_mask)


def _gradients(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    geometry: _Geometry,
) -> _Gradients:
    use_mask = mask is not None
    # The gradient of the bias does not depend on the bias, only on its shape.
    tensors = _operands(input, weight, offset, mask, bias=None)
    grad_output = grad_output.to(tensors[0].dtype)
    gradients = _Gradients(
        *torch.ops.torchvision._deform_conv2d_backward(
            grad_output, *tensors, *geometry, use_mask
        )
    )
    # A point at exactly −1 counts as outside, where no offset has a gradient in mmcv.
    # torchvision gives it the slope towards the border pixel, which would tell on every
    # padded convolution whose offsets start at 0.
    outside = _before_the_image(tensors[2], weight, geometry)  # [N, G, kh, kw, H', W']
    by_point = gradients.offset.view(*outside.shape[:4], 2, *outside.shape[4:])
    by_point.masked_fill_(outside[:, :, :, :, None], 0)
    return gradients


def _before_the_image(offset: Tensor, weight: Tensor, geometry: _Geometry) -> Tensor:
    """Which sampling points lie at −1 or less in y or x; [N, G, kh, kw, H', W']."""
    (kernel_h, kernel_w), (height, width) = weight.shape[2:], offset.shape[2:]

    def regular(points: int, dilation: int, size: int, stride: int, pad: int) -> Tensor:
        point = torch.arange(points, device=offset.device) * dilation
        step = torch.arange(size, device=offset.device) * stride - pad
        return point[:, None] + step  # [points, size]

    g = geometry
    y = regular(kernel_h, g.dilation_h, height, g.stride_h, g.pad_h)
    x = regular(kernel_w, g.dilation_w, width, g.stride_w, g.pad_w)
    dy, dx = offset.reshape(
        len(offset), g.deform_groups, kernel_h, kernel_w, 2, height, width
    ).unbind(4)
    return (dy + y[:, None, :, None] <= -1) | (dx + x[:, None, :] <= -1)


def _operands(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
) -> list[Tensor]:
    """The tensors of torchvision's operators, in their order and of one dtype."""
    # The operators take no None: a mask of v1 is not read, a missing bias is 0.
    if mask is None:
        mask = input.new_zeros(len(input), 1)
    if bias is None:
        bias = input.new_zeros(len(weight))
    dtype = arithmetic_dtype(input)
    return [tensor.to(dtype) for tensor in (input, weight, offset, mask, bias)]

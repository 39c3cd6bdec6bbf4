"""The two functions of triton_launch through torch: CPU, fp64 and every fallback."""

import torch
from torch import Tensor

from gn_det.ops.layout import memory_format, strides_in, to_format


def _compute_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _finish(y: Tensor, dtype: torch.dtype, fmt: torch.memory_format) -> Tensor:
    """y in the dtype and with the strides that the fake implementation promises."""
    y = y.to(dtype)
    if y.stride() == strides_in(y.shape, fmt):
        return y
    return torch.empty_like(y, memory_format=fmt).copy_(y)


def _cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype)


def group_norm_fwd(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    residual: Tensor | None,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, mean, rstd) of y = act(GN(x) + residual); mean, rstd (N, G) in fp32 or fp64.

    16-bit maps are normalised in fp32 and rounded once, as the kernels do, at the cost
    of a temporary fp32 copy.
    """
    fmt = memory_format(x)
    x = to_format(x, fmt)
    dtype = _compute_dtype(x.dtype)
    N, C = x.shape[:2]
    y, mean, rstd = torch.native_group_norm(
        x.to(dtype),
        _cast(weight, dtype),
        _cast(bias, dtype),
        N,
        C,
        x.shape[2:].numel(),
        num_groups,
        eps,
    )
    if residual is not None:
        y += residual
    if relu:
        y.relu_()
    # Before torch 2.15, CUDA returns contiguous maps whatever x is.
    return _finish(y, x.dtype, fmt), mean, rstd


def group_norm_bwd(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    y: Tensor | None,
    num_groups: int,
    eps: float,
    relu: bool,
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """(dx, dweight, dbias, dresidual); None where `needs` (the first three) is False.

    y is given for residual + ReLU only; dresidual is then dy where y is not <= 0, and
    None otherwise.
    """
    fmt = memory_format(x)
    x = to_format(x, fmt)
    dy = to_format(dy, fmt)
    dtype = _compute_dtype(x.dtype)
    N, C = x.shape[:2]
    dresidual = None
    if y is not None:
        dy = dresidual = _finish(dy.masked_fill(y <= 0, 0), x.dtype, fmt)
    elif relu:
        # The same computation on the same input: the mask is the forward pass's own.
        y, _, _ = group_norm_fwd(x, num_groups, weight, bias, eps, None, True)
        # Before 2.15 masked_fill returns contiguous maps, and the backward kernel
        # misreads a dy in another format than x.
        dy = to_format(dy.masked_fill(y <= 0, 0), fmt)
    need_dx, need_dweight, need_dbias = needs
    if not any(needs):
        return None, None, None, dresidual
    factor = x.new_ones(C, dtype=dtype) if weight is None else weight.to(dtype)
    # Before 2.15 torch's CPU kernel reads dx of channels-last maps where none was asked
    # for, and cannot give dbias without a weight: so it always has both.
    dx, dweight, dbias = torch.ops.aten.native_group_norm_backward(
        dy.to(dtype),
        x.to(dtype),
        mean,
        rstd,
        factor,
        N,
        C,
        x.shape[2:].numel(),
        num_groups,
        [True, need_dweight, need_dbias],
    )
    return (
        _finish(dx, x.dtype, fmt) if need_dx else None,
        dweight.to(weight.dtype) if need_dweight else None,
        dbias.to(bias.dtype) if need_dbias else None,
        dresidual,
    )

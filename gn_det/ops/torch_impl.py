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


def _sum_in(
    dtype: torch.dtype,
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    residual: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(z, mean, rstd) in `dtype`, with z = GN(x) + residual."""
    N, C = x.shape[:2]
    z, mean, rstd = torch.native_group_norm(
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
        z += residual
    return z, mean, rstd


def group_norm_fwd(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: str | None,
    residual: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, mean, rstd) of y = act(GN(x) + residual); mean, rstd (N, G) in fp32 or fp64.

    16-bit maps are normalised in fp32 and rounded once, as the kernels do, at the cost
    of a temporary fp32 copy.
    """
    fmt = memory_format(x)
    x = to_format(x, fmt)
    dtype = _compute_dtype(x.dtype)
    y, mean, rstd = _sum_in(dtype, x, num_groups, weight, bias, eps, residual)
    if activation == 'relu':
        y.relu_()
    elif activation == 'silu':
        torch.nn.functional.silu(y, inplace=True)
    # Before torch 2.15, CUDA returns contiguous maps whatever x is.
    return _finish(y, x.dtype, fmt), mean, rstd


def group_norm_bwd(
    dy: Tensor,
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: str | None,
    kept: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """(dx, dweight, dbias, dresidual); None where `needs` (the first three) is False.

    Where an activation followed a residual, `kept` is y for a ReLU and the residual for
    SiLU, and dresidual is dy through the activation; else both are None.
    """
    fmt = memory_format(x)
    x = to_format(x, fmt)
    dtype = _compute_dtype(x.dtype)
    N, C = x.shape[:2]
    if activation == 'relu':
        y = kept
        if y is None:
            # The same computation on the same input: the mask is the forward pass's.
            y, _, _ = group_norm_fwd(x, num_groups, weight, bias, eps, activation, None)
        dy = dy.masked_fill(y <= 0, 0)
    elif activation == 'silu':
        z, _, _ = _sum_in(dtype, x, num_groups, weight, bias, eps, kept)
        dy = torch.ops.aten.silu_backward(dy.to(dtype), z)
    # Before 2.15 both return contiguous maps, and the backward kernel misreads a dy in
    # another format than x.
    dy = to_format(dy, fmt)
    dresidual = None if kept is None else _finish(dy, x.dtype, fmt)
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

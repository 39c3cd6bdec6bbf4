"""Group Norm + residual + activation in plain torch: the specification, any dtype."""

import torch
from torch import Tensor


def _broadcast(values: Tensor, x: Tensor) -> Tensor:
    """Values (C,) or (N, C), shaped to broadcast against x (N, C, *)."""
    return values.reshape(*values.shape, *[1] * (x.ndim - 2))


def group_norm_ref(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, mean, rstd) with y = act((x - mean) * rstd * weight + bias + residual).

    mean and 1 / rstd**2 - eps are the mean and the biased variance of the D * HW
    elements of each (n, g); both are (N, G).
    """
    groups = x.reshape(x.shape[0], num_groups, -1)
    mean = groups.mean(dim=2)
    centred = groups - mean[:, :, None]
    rstd = ((centred * centred).mean(dim=2) + eps).rsqrt()
    y = (centred * rstd[:, :, None]).reshape(x.shape)
    if weight is not None:
        y = y * _broadcast(weight, x)
    if bias is not None:
        y = y + _broadcast(bias, x)
    if residual is not None:
        y = y + residual
    if activation == 'relu':
        y = torch.relu(y)
    elif activation == 'silu':
        y = y * torch.sigmoid(y)
    return y, mean, rstd


def group_norm_bwd_ref(
    dy: Tensor,
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    activation: str | None = None,
    residual: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(dx, dweight, dbias, dresidual), the closed form that docs/math.md derives.

    `mask` replaces the ReLU's own (y > 0) where a comparison has to use the decisions
    of another implementation.
    """
    N, C = x.shape[:2]
    D = C // num_groups
    z, mean, rstd = group_norm_ref(x, num_groups, weight, bias, eps, None, residual)
    if activation == 'relu':
        mask = ~(z <= 0) if mask is None else mask
        dy = torch.where(mask, dy, torch.zeros_like(dy))
    elif activation == 'silu':
        sigmoid = torch.sigmoid(z)
        dy = dy * sigmoid * (1 + z * (1 - sigmoid))
    mean_c = _broadcast(mean.repeat_interleave(D, dim=1), x)
    rstd_c = _broadcast(rstd.repeat_interleave(D, dim=1), x)
    x_hat = (x - mean_c) * rstd_c
    weight = x.new_ones(C) if weight is None else weight
    sum1 = dy.reshape(N, C, -1).sum(dim=2)
    sum2 = (dy * x_hat).reshape(N, C, -1).sum(dim=2)
    L = D * x[0, 0].numel()
    group1 = (weight * sum1).reshape(N, num_groups, D).sum(dim=2) / L
    group2 = (weight * sum2).reshape(N, num_groups, D).sum(dim=2) / L
    group1 = _broadcast(group1.repeat_interleave(D, dim=1), x)
    group2 = _broadcast(group2.repeat_interleave(D, dim=1), x)
    dx = rstd_c * (_broadcast(weight, x) * dy - group1 - x_hat * group2)
    return dx, sum2.sum(dim=0), sum1.sum(dim=0), dy

"""The parts of mmcv's `MMSyncBN` between which its Python exchanges the statistics.

`input` and what is like it are [N, C, S]; statistics are float32 [C], as in mmcv. The
variance of a batch is biased (÷ N · S), the running one is not.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def sync_bn_forward_mean(input: Tensor, mean: Tensor) -> None:
    """Fill `mean` with the mean of each channel."""
    mean.copy_(input.float().mean((0, 2)))


@torch.no_grad()
def sync_bn_forward_var(input: Tensor, mean: Tensor, var: Tensor) -> None:
    """Fill `var` with the mean square distance from `mean`, that of all processes."""
    var.copy_((input.float() - mean[:, None]).square().mean((0, 2)))


@torch.no_grad()
def sync_bn_forward_output(
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    norm: Tensor,
    std: Tensor,
    output: Tensor,
    eps: float,
    momentum: Tensor,
    group_size: int,
) -> None:
    """Fill `std`, `norm` = (input − mean) / std and `output` = norm · weight + bias.

    The running statistics move by `momentum` (0 where no process had an input).
    """
    std.copy_((var + eps).sqrt())
    norm.copy_((input.float() - mean[:, None]) / std[:, None])
    output.copy_(norm * weight[:, None] + bias[:, None])
    count = input.shape[0] * input.shape[2] * group_size
    unbiased = var * (count / (count - 1)) if count > 1 else var
    running_mean.mul_(1 - momentum).add_(mean * momentum)
    running_var.mul_(1 - momentum).add_(unbiased * momentum)


@torch.no_grad()
def sync_bn_backward_param(
    grad_output: Tensor, norm: Tensor, grad_weight: Tensor, grad_bias: Tensor
) -> None:
    """Fill the gradients of weight and bias."""
    grad_output = grad_output.float()
    grad_weight.copy_((grad_output * norm).sum((0, 2)))
    grad_bias.copy_(grad_output.sum((0, 2)))


@torch.no_grad()
def sync_bn_backward_data(
    grad_output: Tensor,
    weight: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    norm: Tensor,
    std: Tensor,
    grad_input: Tensor,
) -> None:
    """Fill the input's gradient; weight's and bias's are means over processes."""
    shared = (grad_weight[:, None] * norm + grad_bias[:, None]) / (
        norm.shape[0] * norm.shape[2]
    )
    grad_input.copy_((weight / std)[:, None] * (grad_output.float() - shared))

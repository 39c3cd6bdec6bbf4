"""The backward operator of a forward one that is composed of torch's functions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def gradients(
    function: Callable[..., Tensor], tensors: tuple[Tensor, ...], grad_output: Tensor
) -> tuple[Tensor, ...]:
    """The gradients of `function(*tensors)` towards each tensor, by torch's autograd.

    Works where gradients are switched off, hence within an `autograd.Function`.
    """
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        output = function(*leaves)
        return torch.autograd.grad(output, leaves, grad_output)

"""The dtype in which an operator computes."""

from __future__ import annotations

import torch
from torch import Tensor


def arithmetic_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 if any of the tensors is float64, float32 otherwise.

    Half types are widened because torchvision's CPU operators lack some of them and
    because box coordinates beyond 2048 (float16) or 256 (bfloat16) are not whole pixels
    there any more.
    """
    if any(tensor.dtype == torch.float64 for tensor in tensors):
        return torch.float64
    return torch.float32

"""Memory formats: which one a map is in, and dense copies in a given one."""

import torch
from torch import Tensor
from torch._prims_common import (
    make_channels_last_strides_for,
    make_contiguous_strides_for,
    suggest_memory_format,
)

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def memory_format(x: Tensor) -> torch.memory_format:
    """The format torch itself would give to the output of an operation on x.

    Maps that are dense in both formats (one channel, one position) and slices that are
    dense in neither are decided by torch's own rule on the strides.
    """
    channels_last = _CHANNELS_LAST.get(x.ndim)
    if channels_last is None:
        return torch.contiguous_format
    contiguous = x.is_contiguous()
    if contiguous != x.is_contiguous(memory_format=channels_last):
        return torch.contiguous_format if contiguous else channels_last
    return suggest_memory_format(x)


def to_format(x: Tensor, fmt: torch.memory_format) -> Tensor:
    """x itself when dense in fmt, a dense copy otherwise."""
    return x if x.is_contiguous(memory_format=fmt) else x.contiguous(memory_format=fmt)


def dense(x: Tensor) -> tuple[Tensor, torch.memory_format]:
    """x, or a copy if need be, dense in `memory_format(x)`, and that format."""
    channels_last = _CHANNELS_LAST.get(x.ndim)
    if x.is_contiguous():
        if channels_last is None or not x.is_contiguous(memory_format=channels_last):
            return x, torch.contiguous_format
    elif channels_last is not None and x.is_contiguous(memory_format=channels_last):
        return x, channels_last
    fmt = memory_format(x)
    return to_format(x, fmt), fmt


def strides_in(shape: torch.Size, fmt: torch.memory_format) -> tuple[int, ...]:
    """The strides torch gives to a new tensor of this shape and format."""
    if fmt is torch.contiguous_format:
        return make_contiguous_strides_for(shape)
    return make_channels_last_strides_for(shape)

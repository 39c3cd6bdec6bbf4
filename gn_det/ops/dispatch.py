"""Which implementation serves a call: argument, context manager, GN_DET_IMPL, auto."""

import contextlib
import functools
import logging
import os
from collections.abc import Iterator
from contextvars import ContextVar
from types import ModuleType

import torch
from torch import Tensor

from gn_det.ops import torch_impl

try:
    from gn_det.ops import triton_launch
except ImportError as error:
    triton_launch = None
    _MISSING = f'Triton cannot be imported ({error})'

CHOICES = ('auto', 'torch', 'triton')
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_MAX_POSITIONS = 2**30  # offsets inside a map are int32

_logger = logging.getLogger(__name__)
_logged: set[str] = set()
_context: ContextVar[str | None] = ContextVar('gn_det_implementation', default=None)


def _check(name: str, source: str) -> str:
    if name not in CHOICES:
        raise ValueError(
            f'{source} must be one of {", ".join(CHOICES)}, but got {name!r}'
        )
    return name


@contextlib.contextmanager
def implementation(name: str) -> Iterator[None]:
    """Uses the named implementation for the calls of this thread or task inside.

    `name` is 'auto', 'torch' or 'triton'. It overrides GN_DET_IMPL; an `impl` argument
    overrides it. The backward pass uses what its forward pass used.
    """
    token = _context.set(_check(name, 'implementation'))
    try:
        yield
    finally:
        _context.reset(token)


def requested(impl: str | None) -> str:
    """The choice in force: argument, then context manager, then GN_DET_IMPL."""
    if impl is not None:
        return _check(impl, 'impl')
    name = _context.get()
    if name is not None:
        return name
    name = os.environ.get('GN_DET_IMPL')
    return _check(name, 'GN_DET_IMPL') if name else 'auto'


def unsupported_reason(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
) -> str | None:
    """Why the Triton kernels cannot take this call, in words; None when they can."""
    if triton_launch is None:
        return _MISSING
    on_cuda = x.is_cuda
    if not on_cuda and not triton_launch.INTERPRETED:
        return f'the Triton kernels need a CUDA tensor, but x is on {x.device}'
    if x.dtype not in _DTYPES:
        return f'the Triton kernels compute in float32 and cannot serve {x.dtype}'
    if on_cuda and torch.version.hip is None and _capability(x.get_device()) < (8, 0):
        return 'the Triton kernels need compute capability 8.0 or higher'
    if weight is not None and weight.dtype not in _DTYPES:
        return f'the Triton kernels cannot read weight in {weight.dtype}'
    if bias is not None and bias.dtype not in _DTYPES:
        return f'the Triton kernels cannot read bias in {bias.dtype}'
    if residual is not None and residual.dtype != x.dtype:
        return f'the Triton kernels need residual in {x.dtype}, as x'
    if x.numel() >= _MAX_POSITIONS and x.shape[2:].numel() >= _MAX_POSITIONS:
        return f'the Triton kernels take fewer than {_MAX_POSITIONS} positions a map'
    return None


@functools.cache
def _capability(device: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def select(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    impl: str | None,
) -> ModuleType:
    """The module whose group_norm_fwd and group_norm_bwd serve this call."""
    name = requested(impl)
    if name == 'torch':
        return torch_impl
    if name == 'auto' and not x.is_cuda:
        # The interpreter is for tests: only an explicit choice runs it.
        _log_once(f'x is on {x.device}', logging.INFO)
        return torch_impl
    reason = unsupported_reason(x, num_groups, weight, bias, residual)
    if reason is None:
        return triton_launch
    if name == 'triton':
        raise RuntimeError(f"implementation 'triton' was asked for, but {reason}")
    _log_once(reason, logging.WARNING)
    return torch_impl


def _log_once(reason: str, level: int) -> None:
    if reason not in _logged:
        _logged.add(reason)
        _logger.log(level, 'group_norm uses torch: %s', reason)

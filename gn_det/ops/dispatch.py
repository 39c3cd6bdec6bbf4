"""Which implementation serves a call, and why the kernels cannot where they cannot."""

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
_context: ContextVar[str] = ContextVar(
    'gn_det_implementation', default=os.environ.get('GN_DET_IMPL') or 'auto'
)


@contextlib.contextmanager
def implementation(name: str) -> Iterator[None]:
    """Uses the named implementation for the calls of this thread or task inside.

    `name` is 'auto', 'torch' or 'triton'. Outside any such block it is the value that
    the variable GN_DET_IMPL had when `gn_det.ops` was imported, or 'auto'; an `impl`
    argument overrides it for one call. The backward pass uses what its forward pass
    used, and a compiled graph what it was compiled with: another choice compiles anew
    (before torch 2.15 it has no effect on a graph that is there).
    """
    token = _context.set(_known(name))
    try:
        yield
    finally:
        _context.reset(token)


def _of_context() -> str:
    return _context.get()


if torch.__version__ < '2.15':
    # Its compiler cannot read a ContextVar.
    _of_context = torch.compiler.assume_constant_result(_of_context)


def requested(impl: str | None) -> str:
    """The choice in force: the argument, or that of the context or the environment."""
    return _known(_of_context() if impl is None else impl)


def _known(name: str) -> str:
    if name not in CHOICES:
        raise ValueError(
            f'the implementation (impl, implementation() or GN_DET_IMPL) must be one '
            f'of {", ".join(CHOICES)}, but got {name!r}'
        )
    return name


def unsupported_reason(x: Tensor) -> str | None:
    """Why the Triton kernels cannot serve calls with this x; None when they can."""
    if triton_launch is None:
        return _MISSING
    if not x.is_cuda and not triton_launch.INTERPRETED:
        return f'the Triton kernels need a CUDA tensor, but x is on {x.device}'
    if x.dtype not in _DTYPES:
        return f'the Triton kernels compute in float32 and cannot serve {x.dtype}'
    if x.numel() >= _MAX_POSITIONS and x.shape[2:].numel() >= _MAX_POSITIONS:
        return f'the Triton kernels take fewer than {_MAX_POSITIONS} positions a map'
    return _device_reason(x.get_device()) if x.is_cuda else None


@functools.cache
def _device_reason(device: int) -> str | None:
    """What keeps the kernels from running on a CUDA device: a first launch tells."""
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0):
        return 'the Triton kernels need compute capability 8.0 or higher'
    try:
        triton_launch.probe(torch.device('cuda', device))
    except Exception as error:  # A compiler's, a linker's, the driver's, Triton's own.
        lines = str(error).strip().splitlines() or ['']
        return (
            f'a first small Triton kernel on cuda:{device} failed with '
            f'{type(error).__name__}: {lines[0]} (Triton needs a C compiler, gcc or '
            'clang or what CC names, with the headers of this Python, and a driver '
            'for its CUDA version)'
        )
    return None


def select(x: Tensor, name: str) -> ModuleType:
    """The module whose group_norm_fwd and group_norm_bwd serve calls with this x.

    The same name and the same x give the same module, forward and backward.
    """
    if name == 'torch':
        return torch_impl
    if name == 'auto' and not x.is_cuda:
        # The interpreter is for tests: only an explicit choice runs it.
        _log_once(f'x is on {x.device}', logging.INFO)
        return torch_impl
    reason = unsupported_reason(x)
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

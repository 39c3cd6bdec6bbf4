"""What a pickle may ask for beyond plain values, and what it gets under these names.

NumPy's own functions take dtypes, flags and fields from a file as they come, with
which bytes can be made to pass for pointers. mmengine's classes take tables and methods
that the whole process shares. The stand-ins take codes of numbers, shapes and bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from pickle import UnpicklingError
from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer
from torch import Tensor

_NUMBERS = 'biufc'
_STATISTICS = ('min', 'max', 'mean', 'current')
_ANNEALING = ('_annealing_cos', '_annealing_linear')


class RefusedGlobal(UnpicklingError):
    """A pickle asks for something other than numbers and plain containers."""

    def __init__(self, name: str) -> None:
        super().__init__(f'it asks for {name}')
        self.name = name


class StandIn:
    """What an object is until its state has been read; `unstored` then swaps it."""

    # Nothing that is swapped may be a key.
    __hash__ = None

    def __init__(self, *_: Any) -> None:
        """Take nothing from a constructor's arguments."""

    def __setstate__(self, state: Any) -> None:
        """Take no attributes from a file."""
        raise UnpicklingError('a state for what has none')

    def unstored(self) -> Any:
        """The object itself; an error if its state never came."""
        raise UnpicklingError('a class where a value should be')


class _Dtype(StandIn):
    """A dtype of numbers; only its code and byte order are taken."""

    def __init__(self, code: str, *_: Any) -> None:
        self.numpy = np.dtype(str(code))
        if self.numpy.kind not in _NUMBERS:
            raise RefusedGlobal(f'an array of {self.numpy}')

    def __setstate__(self, state: tuple) -> None:
        _, byte_order, *structure = state[:5]
        if structure != [None] * 3:
            raise RefusedGlobal('an array of structures')
        ordered = self.numpy.newbyteorder(byte_order)
        # A dtype of its own for the buffer protocol, even in this machine's order.
        if not ordered.isnative:
            self.numpy = ordered

    def unstored(self) -> np.dtype:
        return self.numpy

    def array(self, content: bytes | str, shape: tuple, order: str) -> np.ndarray:
        """An array of this machine's byte order that can be written."""
        # Bytes of Python 2 are text, since its strings are read as latin-1.
        if isinstance(content, str):
            content = content.encode('latin1')
        if not isinstance(content, (bytes, bytearray)):
            raise ValueError('an array without its bytes')
        array = np.ndarray(shape, self.numpy, bytearray(content), order=order)
        if array.nbytes != len(content):
            raise ValueError('the bytes of an array do not fit its shape')
        return array.astype(np.dtype(self.numpy.type), copy=False)


class _Array(StandIn):
    numpy: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, content = state
        self.numpy = dtype.array(content, shape, 'F' if fortran else 'C')

    def unstored(self) -> np.ndarray:
        if self.numpy is None:
            raise UnpicklingError('an array without its bytes')
        return self.numpy


def _scalar(dtype: _Dtype, content: bytes | str) -> np.generic:
    return dtype.array(content, (), 'C')[()]


def _from_buffer(
    content: bytes, dtype: _Dtype, shape: tuple, order: str, *_: Any
) -> np.ndarray:
    return dtype.array(content, shape, order)


class _HistoryBuffer(StandIn):
    """The two arrays and the length of a `HistoryBuffer`.

    Its own `__setstate__` takes the table of statistics from the file, which all
    buffers of the process share.
    """

    buffer: HistoryBuffer | None = None

    def __setstate__(self, state: dict) -> None:
        log, count = (
            state[name].unstored() for name in ('_log_history', '_count_history')
        )
        self.buffer = HistoryBuffer(log, count, int(state['max_length']))

    def unstored(self) -> HistoryBuffer:
        if self.buffer is None:
            raise UnpicklingError('a HistoryBuffer without its numbers')
        return self.buffer


class _OneCycle(StandIn):
    """The class whose static methods a OneCycle schedule keeps."""


def _attribute(owner: Any, name: str) -> Callable:
    """What `builtins.getattr` may do in a checkpoint.

    Pickle stores `HistoryBuffer.mean` as `getattr(HistoryBuffer, 'mean')`, and likewise
    the annealing of a OneCycle schedule. Allowing the real `getattr` would let a file
    reach any attribute of any allowed object.
    """
    if owner is _HistoryBuffer and name in _STATISTICS:
        return getattr(HistoryBuffer, name)
    if owner is _OneCycle and name in _ANNEALING:
        from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

        return getattr(OneCycleParamScheduler, name)
    asked_by = next((key for key, thing in TRAINING.items() if thing is owner), owner)
    raise RefusedGlobal(f'attribute {name!r} of {asked_by}')


def _no_bytes() -> bytes:
    """The memory of an empty array, in pickle's older protocols: `bytes()`."""
    return b''


ARRAYS: dict[str, Callable] = {'numpy.ndarray': _Array, 'numpy.dtype': _Dtype}
# A file keeps the name of the NumPy (1 or 2) that wrote it.
for _package in ('numpy.core', 'numpy._core'):
    ARRAYS[f'{_package}.multiarray._reconstruct'] = _Array
    ARRAYS[f'{_package}.multiarray.scalar'] = _scalar
    ARRAYS[f'{_package}.numeric._frombuffer'] = _from_buffer

# What mmengine's Runner keeps beside weights: its message hub and its schedules.
TRAINING: dict[str, Callable] = {
    **ARRAYS,
    'builtins.bytes': _no_bytes,
    'builtins.getattr': _attribute,
    'mmengine.logging.history_buffer.HistoryBuffer': _HistoryBuffer,
    'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler': _OneCycle,
}


def unstored(value: Any) -> Any:
    """What a file holds, with the objects themselves where stand-ins were.

    Dicts, lists and attributes are changed in place, each once however often the file
    refers to it; a tuple is made anew where something in it changes.

    Raises:
        UnpicklingError: for a stand-in whose state never came.
    """
    # A value is kept beside its result, because ids are those of living objects.
    seen: dict[int, tuple[Any, Any]] = {}

    def visit(value: Any) -> Any:
        if isinstance(value, StandIn):
            return value.unstored()
        if isinstance(value, type) and issubclass(value, StandIn):
            raise UnpicklingError('a class where a value should be')
        if id(value) in seen:
            return seen[id(value)][1]
        result = value
        if type(value) is tuple:
            items = tuple(map(visit, value))
            if any(new is not old for new, old in zip(items, value, strict=True)):
                result = items
            seen[id(value)] = value, result
        elif isinstance(value, (dict, list)):
            seen[id(value)] = value, value
            entries = value.items() if isinstance(value, dict) else enumerate(value)
            for key, item in list(entries):
                value[key] = visit(item)
        # State dicts carry `_metadata`, tensors what was set on them.
        if isinstance(value, (dict, Tensor)) and getattr(value, '__dict__', None):
            visit(value.__dict__)
        return result

    return visit(value)

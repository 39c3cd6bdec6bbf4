"""NumPy arrays and scalars as pickles store them, rebuilt from their numbers alone.

NumPy's own functions take dtypes, flags and fields from a file as they come, with
which bytes can be made to pass for pointers. The stand-ins here go under the same names
in a restricted unpickler and take nothing but codes of numbers, shapes and bytes.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor

_NUMBERS = 'biufc'

_thread = threading.local()


@contextmanager
def reading() -> Iterator[None]:
    """Let this thread make stand-ins, which then have to be `unstored`."""
    outer = getattr(_thread, 'reads', False)
    _thread.reads = True
    try:
        yield
    finally:
        _thread.reads = outer


def check_reading() -> None:
    """Refuse an unpickler that met a stand-in by chance.

    Raises:
        UnpicklingError: if this thread is not `reading`.
    """
    if not getattr(_thread, 'reads', False):
        raise pickle.UnpicklingError(
            'this name is refused while another thread reads a checkpoint'
        )


class RefusedGlobal(pickle.UnpicklingError):
    """A pickle asks for something other than arrays and plain containers."""

    def __init__(self, name: str) -> None:
        super().__init__(f'it asks for {name}')
        self.name = name


class StandIn:
    """What an object is until its state has been read; `unstored` then swaps it.

    Raises:
        UnpicklingError: if this thread is not `reading`.
    """

    # Nothing that is swapped may be a key.
    __hash__ = None

    def __new__(cls, *_: Any) -> StandIn:
        check_reading()
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Take no attributes from a file."""
        raise pickle.UnpicklingError('a state for what has none')

    def unstored(self) -> Any:
        """The object itself; a ValueError if its state never came."""
        raise NotImplementedError


class _StoredDtype(StandIn):
    """A dtype of numbers as a file describes it; only the byte order is taken."""

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


class _StoredArray(StandIn):
    numpy: np.ndarray | None = None

    def __init__(self, *_: Any) -> None:
        """Take no array from its constructor, whose memory would be uninitialised."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, content = state
        self.numpy = dtype.array(content, shape, 'F' if fortran else 'C')

    def unstored(self) -> np.ndarray:
        if self.numpy is None:
            raise ValueError('an array without its bytes')
        return self.numpy


def _scalar(dtype: _StoredDtype, content: bytes | str) -> np.generic:
    return dtype.array(content, (), 'C')[()]


def _from_buffer(
    content: bytes, dtype: _StoredDtype, shape: tuple, order: str, *_: Any
) -> np.ndarray:
    return dtype.array(content, shape, order)


def stand_ins() -> dict[str, Callable]:
    """What stands under each name by which a pickle asks for NumPy."""
    names: dict[str, Callable] = {
        'numpy.ndarray': _StoredArray,
        'numpy.dtype': _StoredDtype,
    }
    # A file keeps the name of the NumPy (1 or 2) that wrote it.
    for package in ('numpy.core', 'numpy._core'):
        names[f'{package}.multiarray._reconstruct'] = _StoredArray
        names[f'{package}.multiarray.scalar'] = _scalar
        names[f'{package}.numeric._frombuffer'] = _from_buffer
    return names


def unstored(value: Any) -> Any:
    """What a file holds, with the objects themselves where stand-ins were.

    Dicts, lists and attributes are changed in place, each once however often the file
    refers to it; a tuple is made anew where something in it changes.

    Raises:
        ValueError: for a stand-in whose state never came.
    """
    # A value is kept beside its result, because ids are those of living objects.
    seen: dict[int, tuple[Any, Any]] = {}

    def visit(value: Any) -> Any:
        if isinstance(value, StandIn):
            return value.unstored()
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

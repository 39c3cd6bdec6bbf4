"""Detectron's and detectron2's `.pkl` files: arrays and plain containers, no code."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gn_det.errors import UserError

_NUMBERS = 'biufc'


class RefusedGlobal(pickle.UnpicklingError):
    """A pickle asks for something other than arrays and plain containers."""

    def __init__(self, name: str) -> None:
        super().__init__(f'it asks for {name}')
        self.name = name


class _StoredDtype:
    """A dtype of numbers as a file describes it.

    NumPy's own dtype takes flags and fields from a file as they come, with which bytes
    can be made to pass for pointers. Nothing but the byte order is taken here.
    """

    def __init__(self, code: str, *_: Any) -> None:
        self.numpy = np.dtype(str(code))
        if self.numpy.kind not in _NUMBERS:
            raise RefusedGlobal(f'an array of {self.numpy}')

    def __setstate__(self, state: tuple) -> None:
        _, byte_order, *structure = state[:5]
        if structure != [None] * 3:
            raise RefusedGlobal('an array of structures')
        self.numpy = self.numpy.newbyteorder(byte_order)

    def array(self, content: bytes | str, shape: tuple, order: str) -> np.ndarray:
        """An array of this machine's byte order that can be written."""
        # Bytes of Python 2 are text, since its strings are read as latin-1.
        text = isinstance(content, str)
        raw = bytearray(content.encode('latin1') if text else content)
        array = np.ndarray(shape, self.numpy, raw, order=order)
        if array.nbytes != len(raw):
            raise ValueError('the bytes of an array do not fit its shape')
        return array.astype(self.numpy.newbyteorder('='), copy=False)


class _StoredArray:
    """What an array is until its state has been read."""

    def __init__(self, *_: Any) -> None:
        self.numpy: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, content = state
        self.numpy = dtype.array(content, shape, 'F' if fortran else 'C')


def _scalar(dtype: _StoredDtype, content: bytes | str) -> np.generic:
    return dtype.array(content, (), 'C')[()]


def _from_buffer(
    content: bytes, dtype: _StoredDtype, shape: tuple, order: str, *_: Any
) -> np.ndarray:
    return dtype.array(content, shape, order)


def _encode(text: str, encoding: str = 'latin1') -> bytes:
    """How a pickle of protocol 2 written by Python 3 spells bytes."""
    return text.encode(encoding)


def _allowed() -> dict[str, Callable]:
    names = {
        'numpy.ndarray': _StoredArray,
        'numpy.dtype': _StoredDtype,
        'collections.OrderedDict': OrderedDict,
        '_codecs.encode': _encode,
    }
    # A file keeps the name of the NumPy (1 or 2) that wrote it.
    for package in ('numpy.core', 'numpy._core'):
        names[f'{package}.multiarray._reconstruct'] = _StoredArray
        names[f'{package}.multiarray.scalar'] = _scalar
        names[f'{package}.numeric._frombuffer'] = _from_buffer
    # Containers are opcodes of their own, except these in older protocols.
    for package in ('builtins', '__builtin__'):
        for container in (set, frozenset, bytes, bytearray):
            names[f'{package}.{container.__name__}'] = container
    return names


class ArrayUnpickler(pickle.Unpickler):
    """An unpickler that knows NumPy arrays of numbers and the builtin containers.

    Files of Python 2 are read too: their strings come back as latin-1 text.

    Raises:
        RefusedGlobal: when the file asks for anything else; that is not imported.
    """

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding='latin1')
        self._names = _allowed()

    def find_class(self, module: str, name: str) -> Any:
        """The allowed thing of that name."""
        try:
            return self._names[f'{module}.{name}']
        except KeyError:
            raise RefusedGlobal(f'{module}.{name}') from None

    def persistent_load(self, pid: Any) -> Any:
        """Refuse a reference to something outside the file."""
        raise RefusedGlobal(f'the persistent object {pid!r}')


def load_pickle(path: str | Path) -> dict:
    """The content of a `.pkl` file of arrays, with none of its code run.

    Detectron keeps `{'blobs': {name: array}, 'cfg': text}`, detectron2
    `{'model': {name: array}, '__author__': text}`.

    Raises:
        UserError: if there is no such file, if it asks for anything but arrays of
            numbers and plain containers (the thing is named), if it is damaged, or if
            it holds no dict.
    """
    try:
        with open(path, 'rb') as file:
            content = _with_arrays(ArrayUnpickler(file).load())
    except FileNotFoundError:
        raise UserError(f'checkpoint not found: {path}') from None
    except RefusedGlobal as error:
        raise UserError(
            f'{path} asks for {error.name}, and nothing but arrays and plain '
            'containers is loaded; get the file from a source you know'
        ) from error
    # A damaged file can make the unpickler raise anything at all.
    except Exception as error:
        raise UserError(
            f'{path} is not a checkpoint: it is no whole pickle file'
        ) from error
    if not isinstance(content, dict):
        raise UserError(f'{path} holds a {type(content).__name__}, not a dict')
    return content


def _with_arrays(value: Any) -> Any:
    """The same containers with the arrays in their places."""
    if isinstance(value, _StoredArray):
        return value.numpy
    if isinstance(value, dict):
        return type(value)((key, _with_arrays(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return type(value)(map(_with_arrays, value))
    return value

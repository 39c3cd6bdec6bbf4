"""Detectron's and detectron2's `.pkl` files: arrays and plain containers, no code."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gn_det.workbench.errors import UserError
from gn_det.workbench.loading.stored_arrays import (
    RefusedGlobal,
    reading,
    stand_ins,
    unstored,
)


def _encode(text: str, encoding: str = 'latin1') -> bytes:
    """How a pickle of protocol 2 written by Python 3 spells bytes."""
    return text.encode(encoding)


def _allowed() -> dict[str, Callable]:
    names = {
        **stand_ins(),
        'collections.OrderedDict': OrderedDict,
        '_codecs.encode': _encode,
    }
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
        with open(path, 'rb') as file, reading():
            stored = ArrayUnpickler(file).load()
        content = unstored(stored)
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

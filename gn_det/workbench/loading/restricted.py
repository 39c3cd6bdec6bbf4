"""Unpickling with the rights that weights and numbers need, and no more."""

from __future__ import annotations

import io
import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from torch.serialization import (
    add_safe_globals,
    clear_safe_globals,
    get_safe_globals,
)

from gn_det.workbench.loading.stand_ins import (
    ARRAYS,
    TRAINING,
    RefusedGlobal,
    unstored,
)

# torch's list is one for the whole process.
_LIST = threading.RLock()


def load_torch(
    file: str | Path | IO[bytes], map_location: Any = 'cpu', mmap: bool = False
) -> Any:
    """`torch.load` with `weights_only`, of checkpoints of mmengine's Runner too.

    Beside what torch itself allows these may hold NumPy arrays and scalars of numbers,
    `HistoryBuffer`s of mmengine, the two functions its OneCycle schedules keep, and
    what the caller put on torch's list (`torch.serialization.add_safe_globals`), except
    under the names of ours.

    With `mmap` tensors are read when they are used.

    While it runs, no other thread may call `torch.load` or change that list.

    Raises:
        UnpicklingError: if the file asks for anything else; nothing of it is run. A
            damaged file can raise anything at all.
    """
    with _listed(TRAINING):
        content = torch.load(
            file, map_location=map_location, mmap=mmap, weights_only=True
        )
    return unstored(content)


@contextmanager
def _listed(allowed: dict[str, Callable]) -> Iterator[None]:
    """Put things on torch's list under these names, which then are theirs alone."""
    with _LIST:
        before = get_safe_globals()
        clear_safe_globals()
        add_safe_globals([entry for entry in before if _name(entry) not in allowed])
        add_safe_globals([(thing, name) for name, thing in allowed.items()])
        try:
            yield
        finally:
            clear_safe_globals()
            add_safe_globals(before)


def _name(entry: Callable | tuple[Callable, str]) -> str:
    if isinstance(entry, tuple):
        return entry[1]
    return f'{entry.__module__}.{entry.__qualname__}'


def load_pickle(file: IO[bytes]) -> Any:
    """The content of a plain pickle: arrays of numbers, tensors, builtin containers.

    Detectron keeps `{'blobs': {name: array}, 'cfg': text}`, detectron2
    `{'model': {name: array}, '__author__': text}`. Files of Python 2 are read too:
    their strings come back as latin-1 text.

    Raises:
        RefusedGlobal: if it asks for anything else; that is not imported. A damaged
            file can raise anything at all.
    """
    return unstored(_Unpickler(file, encoding='latin1').load())


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The allowed thing of that name."""
        try:
            return _PLAIN[f'{module}.{name}']
        except KeyError:
            raise RefusedGlobal(f'{module}.{name}') from None

    def persistent_load(self, pid: Any) -> Any:
        """Refuse a reference to something outside the file."""
        raise RefusedGlobal(f'the persistent object {pid!r}')


class _Function:
    """A function that takes no attributes from a file, as Python's own would."""

    __slots__ = ('_function',)

    def __init__(self, function: Callable) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        """Take no attributes."""
        raise RefusedGlobal('the attributes of a function')


def _encode(text: str, encoding: str = 'latin1') -> bytes:
    """How a pickle of protocol 2 written by Python 3 spells bytes."""
    return text.encode(encoding)


def _storage(content: bytes) -> Any:
    """How a tensor's memory is pickled outside of torch's own files."""
    return torch.load(io.BytesIO(content), weights_only=True)


_PLAIN: dict[str, Any] = {
    'collections.OrderedDict': OrderedDict,
    # Containers are opcodes of their own, except these in older protocols.
    **{
        f'{package}.{container.__name__}': container
        for package in ('builtins', '__builtin__')
        for container in (set, frozenset, bytes, bytearray)
    },
    **{
        name: thing if isinstance(thing, type) else _Function(thing)
        for name, thing in {
            **ARRAYS,
            '_codecs.encode': _encode,
            'torch.storage._load_from_bytes': _storage,
            'torch._utils._rebuild_tensor_v2': torch._utils._rebuild_tensor_v2,
        }.items()
    },
}

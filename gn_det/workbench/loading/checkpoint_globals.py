"""Training checkpoints under torch ≥ 2.6, which loads with `weights_only=True`.

A checkpoint of mmengine's Runner holds its message hub, `HistoryBuffer` objects and
NumPy arrays, and its schedules, which torch's restricted unpickler refuses by default.
mmengine 0.10.7 calls a bare `torch.load`, so resuming fails there; the OneDL fork
retries with full rights. `load` names the few things such a file needs, each by a
stand-in that takes plain values only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

import torch
from mmengine.logging import HistoryBuffer
from torch.serialization import add_safe_globals, get_safe_globals, safe_globals

from gn_det.workbench.loading.stored_arrays import (
    StandIn,
    check_reading,
    reading,
    stand_ins,
    unstored,
)

_STATISTICS = ('min', 'max', 'mean', 'current')
_ANNEALING = ('_annealing_cos', '_annealing_linear')

# torch's list is one for the whole process.
_LIST = threading.RLock()


def load(path: str | Path | IO[bytes], map_location: Any = 'cpu') -> Any:
    """`torch.load` of a checkpoint with the rights that weights and numbers need.

    Beside what torch itself allows these are NumPy arrays and scalars of numbers,
    `HistoryBuffer`s of mmengine, the two functions its OneCycle schedules keep, and
    what the caller put on torch's list (`torch.serialization.add_safe_globals`). A name
    that is among ours is always read in our way, whatever the caller listed under it.

    The list is one for the process. While a file is read, a plain `torch.load` in
    another thread is refused what lies under those names, even if it has listed them,
    and a thing that another thread lists under one of them then may be taken for ours.
    Such loads belong before or after this one. The rest of the list is left alone.

    Raises:
        UnpicklingError: if the file asks for anything else; nothing of it is run.
    """
    with _listed(_allowed()), reading():
        content = torch.load(path, map_location=map_location, weights_only=True)
    return unstored(content)


@contextmanager
def _listed(allowed: dict[str, Callable]) -> Iterator[None]:
    """Put things on torch's list under these names, and only for a while.

    A thing that somebody else has listed under one of the names must not be taken for
    ours, so it leaves the list as long. The rest of the list is not touched: other
    threads may change it meanwhile.
    """
    with _LIST:
        displaced = [e for e in get_safe_globals() if _listed_name(e) in allowed]
        _take_off(displaced)
        try:
            with safe_globals([(thing, name) for name, thing in allowed.items()]):
                yield
        finally:
            add_safe_globals(displaced)


def _take_off(entries: list[Callable | tuple[Callable, str]]) -> None:
    # Leaving this context is torch's only public way to take single entries off.
    with safe_globals(entries):
        pass


def _listed_name(entry: Callable | tuple[Callable, str]) -> str:
    if isinstance(entry, tuple):
        return entry[1]
    return f'{entry.__module__}.{entry.__qualname__}'


class _StoredHistoryBuffer(StandIn):
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
            raise ValueError('a HistoryBuffer without its numbers')
        return self.buffer


class _StoredOneCycle(StandIn):
    """The class whose static methods a OneCycle schedule keeps, and no more."""

    def unstored(self) -> Any:
        raise ValueError('a schedule itself, where its state should be')


def stored_attribute(owner: type, name: str) -> Callable:
    """What `builtins.getattr` may do in a checkpoint.

    Pickle stores `HistoryBuffer.mean` as `getattr(HistoryBuffer, 'mean')`, and likewise
    the annealing of a OneCycle schedule. Allowing the real `getattr` would let a file
    reach any attribute of any allowed object.

    Raises:
        UnpicklingError: for any other owner or name, or if this thread is not
            `reading`.
    """
    check_reading()
    if owner is _StoredHistoryBuffer and name in _STATISTICS:
        return getattr(HistoryBuffer, name)
    if owner is _StoredOneCycle and name in _ANNEALING:
        from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

        return getattr(OneCycleParamScheduler, name)
    raise UnpicklingError(
        f'the checkpoint asks for attribute {name!r} of {_original(owner)}; only the '
        f'statistics {", ".join(_STATISTICS)} of mmengine.HistoryBuffer and the '
        'annealing of its OneCycleParamScheduler are allowed'
    )


def _empty_bytes() -> bytes:
    """The memory of an empty array, in pickle's older protocols: `bytes()`."""
    check_reading()
    return b''


def _allowed() -> dict[str, Callable]:
    return {
        **stand_ins(),
        'builtins.bytes': _empty_bytes,
        'builtins.getattr': stored_attribute,
        'mmengine.logging.history_buffer.HistoryBuffer': _StoredHistoryBuffer,
        'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler': (
            _StoredOneCycle
        ),
    }


def _original(owner: Any) -> str:
    """The thing behind a stand-in, by its name; of anything else its type."""
    names = {id(thing): name for name, thing in _allowed().items()}
    return names.get(id(owner), type(owner).__name__)

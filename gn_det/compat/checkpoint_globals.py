"""Training checkpoints under torch ≥ 2.6, which loads with `weights_only=True`.

A checkpoint of mmengine's Runner holds its message hub: `HistoryBuffer` objects and
NumPy arrays, which torch's restricted unpickler refuses by default. mmengine 0.10.7
calls a bare `torch.load`, so resuming fails there; the OneDL fork retries with full
rights. Naming the few globals such a file needs lets both load it with no more rights
than that.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

_STATISTICS = ('min', 'max', 'mean', 'current')


def history_buffer_method(owner: type, name: str) -> Callable:
    """What `builtins.getattr` may do in a checkpoint: name a buffer's statistic.

    Pickle stores `HistoryBuffer.mean` as `getattr(HistoryBuffer, 'mean')`. Allowing the
    real `getattr` would let a file reach any attribute of any allowed object.

    Raises:
        UnpicklingError: for any other owner or name.
    """
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise UnpicklingError(
            f'the checkpoint asks for attribute {name!r} of {owner!r}; only the '
            f'statistics {", ".join(_STATISTICS)} of mmengine.HistoryBuffer are allowed'
        )
    return getattr(HistoryBuffer, name)


def load(path: str | Path | IO[bytes], map_location: Any = 'cpu') -> Any:
    """`torch.load` of a checkpoint with no more rights than `install` gives.

    Raises:
        UnpicklingError: if the file asks for anything else; nothing of it is run.
    """
    # torch's `safe_globals` context, which the OneDL fork loads in, takes off the list
    # on leaving what was on it before as well.
    install()
    return torch.load(path, map_location=map_location, weights_only=True)


def install() -> None:
    """Add the globals of an mmengine training checkpoint to torch's allow-list."""
    numpy_core = np._core if hasattr(np, '_core') else np.core
    multiarray = numpy_core.multiarray
    allowed = [
        HistoryBuffer,
        # The memory of an empty array, in pickle's older protocols: `bytes()`.
        bytes,
        (history_buffer_method, 'builtins.getattr'),
        np.ndarray,
        np.dtype,
        *(
            (getattr(multiarray, name), f'numpy.{core}.multiarray.{name}')
            # A file keeps the name of the NumPy (1 or 2) that wrote it.
            for core in ('core', '_core')
            for name in ('_reconstruct', 'scalar')
        ),
        *{type(np.dtype(code)) for code in '?bhilqBHILQefd'},
    ]
    torch.serialization.add_safe_globals(allowed)

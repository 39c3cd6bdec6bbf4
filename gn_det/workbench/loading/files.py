"""Weight files of every kind, read with no more rights than weights need.

The kind is told from the content: torch's zip archives and its older files, pickles of
Detectron and detectron2, safetensors.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

from gn_det.workbench.errors import UserError
from gn_det.workbench.loading import checkpoint_globals
from gn_det.workbench.loading.system_errors import name_refused_files
from gn_det.workbench.loading.unpickle import load_pickle

TRUST_VARIABLE = 'GN_DET_TRUST'

_ZIP = b'PK\x03\x04'
# torch.save before 1.6 starts with a pickle of protocol 2 of this number.
_OLD_TORCH = b'\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19'
# How torch says that an archive is not whole.
_TORN = re.compile(r'PytorchStreamReader|unexpected EOF|corrupt')
_REFUSALS = (
    re.compile(r'GLOBAL (\S+)'),
    re.compile(r'asks for (attribute \S+ of [^;]+)'),
    re.compile(r'asks for (an array of \S+)'),
)
_PICKLE_PROTOCOLS = tuple(b'\x80' + bytes([n]) for n in range(2, 6))


def trust_local_files() -> None:
    """Load files of this machine with full rights from now on (`--trust`).

    What was downloaded through an address is still loaded as weights only. Child
    processes inherit it, by the environment variable `GN_DET_TRUST=1`.
    """
    os.environ[TRUST_VARIABLE] = '1'


def local_files_are_trusted() -> bool:
    """Whether `--trust` or `GN_DET_TRUST=1` was given."""
    return os.environ.get(TRUST_VARIABLE, '') not in ('', '0')


@name_refused_files
def load_file(
    path: str | Path, *, trust: bool = False, map_location: Any = 'cpu'
) -> Any:
    """The content of a weight file.

    Args:
        path: a file of torch, Detectron, detectron2 or safetensors.
        trust: unpickle with full rights, which lets the file run any code; for files
            of your own.
        map_location: as in `torch.load`; pickles of arrays stay on the CPU.

    Returns:
        What the file holds; for safetensors `{'state_dict': …, 'meta': …}`, with meta
        from its header.

    Raises:
        UserError: if there is no such file, if it is none of these or cut short, or if
            it asks for more than weights and plain values (the thing is named; nothing
            in the file is run).
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'checkpoint not found: {path.absolute()}')
    with open(path, 'rb') as file:
        start = file.read(32)
    if start.startswith((_ZIP, _OLD_TORCH)):
        return load_torch(path, trust=trust, map_location=map_location)
    if _starts_safetensors(start):
        return load_safetensors(path, map_location=map_location)
    if start.startswith(_PICKLE_PROTOCOLS) or path.suffix == '.pkl':
        return _load_trusted_pickle(path) if trust else load_pickle(path)
    raise UserError(f'{path} is not a checkpoint: {_looks_like(start)}')


def load_torch(
    file: str | Path | IO[bytes],
    *,
    trust: bool = False,
    map_location: Any = 'cpu',
    name: str | None = None,
) -> Any:
    """The content of a file that `torch.save` wrote; see `load_file`.

    An open file is called `name` in messages.
    """
    try:
        if trust:
            return torch.load(file, map_location=map_location, weights_only=False)
        return checkpoint_globals.load(file, map_location=map_location)
    # A damaged file can make the unpickler raise anything at all.
    except Exception as error:
        raise _unreadable(name or file, error, 'written by torch.save') from error


def _load_trusted_pickle(path: Path) -> Any:
    try:
        with open(path, 'rb') as file:
            return pickle.load(file, encoding='latin1')
    except Exception as error:
        raise _unreadable(path, error, 'a pickle') from error


def load_safetensors(path: str | Path, *, map_location: Any = 'cpu') -> dict[str, Any]:
    """The tensors and the meta of a `.safetensors` file; see `load_file`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='pt') as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            meta = json.loads(header.get('meta', '{}'))
    except (SafetensorError, ValueError, RecursionError) as error:
        raise UserError(
            f'{path} is not a checkpoint: no whole safetensors file ({error})'
        ) from error
    try:
        state = {name: _put(tensor, map_location) for name, tensor in state.items()}
    except (RuntimeError, AssertionError, MemoryError) as error:
        raise _unreadable(path, error, 'a safetensors file') from error
    # Whatever a caller's own function and the types of a device can raise.
    except Exception as error:
        raise UserError(
            f'{path} cannot be loaded: map_location={map_location!r} names no place '
            f'({_first_line(error)})'
        ) from error
    return {'state_dict': state, 'meta': meta}


def _put(tensor: torch.Tensor, map_location: Any) -> torch.Tensor:
    """A tensor that was stored on the CPU, where `torch.load` would put it."""
    place = map_location
    if isinstance(map_location, Mapping):
        place = map_location.get('cpu')
    # A device can be called too, as a decorator.
    elif callable(map_location) and not isinstance(map_location, torch.device):
        moved = map_location(tensor.untyped_storage(), 'cpu')
        place = None if moved is None else moved.device
    # Anything but a device, such as a dtype, means something else to `Tensor.to`.
    return tensor if place is None else tensor.to(torch.device(place))


def _starts_safetensors(start: bytes) -> bool:
    """Eight bytes of header length, then the header, a JSON object."""
    if len(start) < 9 or start[8:9] != b'{':
        return False
    return struct.unpack('<Q', start[:8])[0] < 100 * 2**20


def _unreadable(name: Any, error: Exception, kind: str) -> UserError:
    """Why a file of this kind could not be read."""
    if asked_for := _asked_for(error):
        return UserError(
            f'{name} is not a checkpoint that torch can read: it asks for {asked_for}, '
            'and nothing but weights and plain values is loaded; --trust loads a file '
            'of your own as it is'
        )
    # With full rights a file brings up what it was written with.
    if isinstance(error, (ImportError, AttributeError)):
        return UserError(
            f'{name} needs something that is not installed here: {_first_line(error)}'
        )
    # The device or the memory, of which the file knows nothing.
    if isinstance(error, (MemoryError, RuntimeError, AssertionError)) and not (
        isinstance(error, RecursionError) or _TORN.search(str(error))
    ):
        return UserError(f'{name} cannot be loaded: {_first_line(error)}')
    return UserError(
        f'{name} is not a checkpoint: it was not {kind}, or it is cut short'
    )


def _asked_for(error: Exception) -> str | None:
    """What a restricted unpickler refused, out of its own and torch's advice."""
    if isinstance(error, pickle.UnpicklingError):
        for pattern in _REFUSALS:
            if found := pattern.search(str(error)):
                return found[1]
    return None


def _first_line(error: Exception) -> str:
    """The words of an error, without the advice that follows them."""
    lines = str(error).strip().splitlines()
    return lines[0].partition('. ')[0] if lines else type(error).__name__


def _looks_like(start: bytes) -> str:
    if not start:
        return 'it is empty'
    if start.lstrip().lower().startswith((b'<!doctype', b'<html', b'<?xml')):
        return 'it is a web page'
    if start.startswith(b'version https://git-lfs'):
        return 'it is a Git LFS pointer, not the file itself'
    return 'it is no file of torch.save, safetensors or pickled arrays, or cut short'

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
from pathlib import Path
from typing import IO, Any

import torch

from gn_det.compat import checkpoint_globals
from gn_det.errors import UserError
from gn_det.zoo.unpickle import load_pickle

TRUST_VARIABLE = 'GN_DET_TRUST'

_ZIP = b'PK\x03\x04'
# torch.save before 1.6 starts with a pickle of protocol 2 of this number.
_OLD_TORCH = b'\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19'
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
        if not trust:
            return load_pickle(path)
        with open(path, 'rb') as file:
            return pickle.load(file, encoding='latin1')
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
        raise UserError(
            f'{name or file} is not a checkpoint that torch can read: {_refusal(error)}'
        ) from error


def load_safetensors(path: str | Path, *, map_location: Any = 'cpu') -> dict[str, Any]:
    """The tensors and the meta of a `.safetensors` file; see `load_file`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='pt') as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            meta = json.loads(header.get('meta', '{}'))
    except (SafetensorError, ValueError) as error:
        raise UserError(
            f'{path} is not a checkpoint: no whole safetensors file ({error})'
        ) from error
    if map_location not in (None, 'cpu'):
        state = {name: tensor.to(map_location) for name, tensor in state.items()}
    return {'state_dict': state, 'meta': meta}


def _starts_safetensors(start: bytes) -> bool:
    """Eight bytes of header length, then the header, a JSON object."""
    if len(start) < 9 or start[8:9] != b'{':
        return False
    return struct.unpack('<Q', start[:8])[0] < 100 * 2**20


def _refusal(error: Exception) -> str:
    """Why torch refused, without its advice to load the file with full rights."""
    asked_for = re.search(r'GLOBAL (\S+)', str(error))
    if asked_for is None and isinstance(error, pickle.UnpicklingError):
        asked_for = re.search(r'asks for (attribute \S+ of [^;]+)', str(error))
    if asked_for:
        return (
            f'it asks for {asked_for[1]}, and nothing but weights and plain values is '
            'loaded; --trust loads a file of your own as it is'
        )
    return 'it was not written by torch.save, or it is cut short'


def _looks_like(start: bytes) -> str:
    if not start:
        return 'it is empty'
    if start.lstrip().lower().startswith((b'<!doctype', b'<html', b'<?xml')):
        return 'it is a web page'
    if start.startswith(b'version https://git-lfs'):
        return 'it is a Git LFS pointer, not the file itself'
    return 'it is no file of torch.save, safetensors or pickled arrays, or cut short'

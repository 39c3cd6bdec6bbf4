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

from gn_det.workbench.errors import UserError
from gn_det.workbench.loading import restricted
from gn_det.workbench.loading.integrity import (
    archive_damage,
    check_digests,
    check_seal,
)
from gn_det.workbench.loading.system_errors import name_refused_files

TRUST_VARIABLE = 'GN_DET_TRUST'

_ZIP = b'PK\x03\x04'
# torch.save before 1.6 starts with a pickle of protocol 2 of this number.
_OLD_TORCH = b'\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19'
_PICKLES = tuple(b'\x80' + bytes([protocol]) for protocol in range(2, 6))
# torch's words and our own.
_REFUSAL = re.compile(r'GLOBAL (\S+)|asks for (.+)')


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
    path: str | Path,
    *,
    trust: bool = False,
    map_location: Any = 'cpu',
    digest_known: bool = False,
) -> Any:
    """The content of a weight file.

    Before anything is unpickled the file has to have the digest in its name and the one
    in `PATH.sha256`, an archive of torch its checksums, and a safetensors file the
    sha256 in its metadata. In torch's older files, and in pickles and safetensors
    without a digest, changed numbers cannot be told from right ones.

    Args:
        path: a file of torch, Detectron, detectron2 or safetensors.
        trust: unpickle with full rights, which lets the file run any code; for files
            of your own.
        map_location: as in `torch.load`; a safetensors file takes a device, else it
            stays on the CPU, as pickles of arrays do.
        digest_known: whether the caller has checked the file's digest.

    Returns:
        What the file holds; for safetensors `{'state_dict': …, 'meta': …}`, with meta
        from its header.

    Raises:
        UserError: if there is no such file, if it is none of these or damaged, or if it
            asks for more than weights and plain values (the thing is named; nothing in
            the file is run).
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'checkpoint not found: {path.absolute()}')
    if not digest_known:
        check_digests(path)
    with open(path, 'rb') as file:
        start = file.read(32)
    if start.startswith((_ZIP, _OLD_TORCH)):
        return load_torch(path, trust=trust, map_location=map_location)
    if _starts_safetensors(start):
        return _load_safetensors(path, map_location)
    if start.startswith(_PICKLES) or path.suffix == '.pkl':
        return _load_pickle(path, trust)
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
    name = name or str(file)
    if isinstance(file, (str, Path)):
        with open(file, 'rb') as opened:
            return load_torch(opened, trust=trust, map_location=map_location, name=name)
    is_archive = file.read(len(_ZIP)) == _ZIP
    if is_archive and (damage := archive_damage(file)):
        raise UserError(
            f'{name} is damaged or cut short ({damage}); get it again, or take an '
            'earlier checkpoint'
        )
    file.seek(0)
    try:
        if trust:
            return torch.load(file, map_location=map_location, weights_only=False)
        return restricted.load_torch(file, map_location=map_location)
    # A damaged file can make the unpickler raise anything at all.
    except Exception as error:
        raise _unreadable(name, error, 'written by torch.save') from error


def _load_pickle(path: Path, trust: bool) -> dict:
    try:
        with open(path, 'rb') as file:
            if trust:
                content = pickle.load(file, encoding='latin1')
            else:
                content = restricted.load_pickle(file)
    except Exception as error:
        raise _unreadable(path, error, 'a pickle') from error
    if not isinstance(content, dict):
        raise UserError(f'{path} holds a {type(content).__name__}, not a dict')
    return content


def _load_safetensors(path: Path, map_location: Any) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='pt') as file:
            metadata = file.metadata() or {}
            check_seal(path, metadata)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            meta = json.loads(metadata.get('meta', '{}'))
    except (SafetensorError, ValueError, RecursionError) as error:
        raise UserError(
            f'{path} is not a checkpoint: no whole safetensors file ({error})'
        ) from error
    if isinstance(map_location, (str, torch.device)):
        try:
            state = {name: tensor.to(map_location) for name, tensor in state.items()}
        except (RuntimeError, AssertionError) as error:
            raise _unreadable(path, error, 'a safetensors file') from error
    return {'state_dict': state, 'meta': meta}


def _starts_safetensors(start: bytes) -> bool:
    """Eight bytes of header length, then the header, a JSON object."""
    if len(start) < 9 or start[8:9] != b'{':
        return False
    return struct.unpack('<Q', start[:8])[0] < 100 * 2**20


def _unreadable(name: Any, error: Exception, kind: str) -> UserError:
    """Why a file of this kind could not be read."""
    refused = isinstance(error, pickle.UnpicklingError)
    if refused and (found := _REFUSAL.search(str(error))):
        return UserError(
            f'{name} asks for {found[1] or found[2]}, and nothing but weights and '
            'plain values is loaded; --trust loads a file of your own as it is'
        )
    # With full rights a file brings up what it was written with.
    if isinstance(error, (ImportError, AttributeError)):
        return UserError(
            f'{name} needs something that is not installed here: {_first_line(error)}'
        )
    # The device or the memory, of which the file knows nothing.
    if isinstance(error, (MemoryError, RuntimeError, AssertionError)) and not (
        isinstance(error, RecursionError) or 'unexpected EOF' in str(error)
    ):
        return UserError(f'{name} cannot be loaded: {_first_line(error)}')
    return UserError(
        f'{name} is not a checkpoint: it was not {kind}, or it is cut short'
    )


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

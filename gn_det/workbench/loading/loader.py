"""mmengine's checkpoint loader with our downloads, and no more rights than needed.

`init_cfg`, `load_from`, `--resume` and the inferencers all ask mmengine's
`CheckpointLoader`. Its own loaders unpickle what they get with full rights (mmengine
0.10.7 from the network, the OneDL fork wherever the restricted load fails) and look at
no digest. Each scheme is registered again here.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from gn_det.workbench.errors import UserError

_MODULE = 'mmengine.runner.checkpoint'
_NETWORK = (
    'http://',
    'https://',
    'open-mmlab://',
    'openmmlab://',
    'torchvision://',
    'modelzoo://',
    'mmcls://',
)
_STORES = (r'(\S+\:)?s3://', r'(\S+\:)?petrel://')
_PAVI = 'pavi://'

_fetch: Callable[[str], Path] | None = None
# What `peek` has read and mmengine has not taken yet: its name, state, and content.
_held: tuple[str, Any, dict] | None = None
# Where the run of this process saves its checkpoints.
_run_folder: Path | None = None


def install(fetch: Callable[[str], Path]) -> None:
    """Register the loader; calling it again changes nothing.

    mmengine's Runner is not imported for it: where it is not there yet, the loader is
    registered when it comes.

    Args:
        fetch: the file that an address of the network stands for, its digest checked.
    """
    global _fetch
    _fetch = fetch
    if _MODULE in sys.modules:
        _register(sys.modules[_MODULE])
    elif not any(isinstance(finder, _Watcher) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watcher())


class _Watcher(importlib.abc.MetaPathFinder):
    """Registers the loader as soon as mmengine's module has been imported."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if fullname != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            _register(module)

        spec.loader.exec_module = execute_and_register
        return spec


def _register(module: ModuleType) -> None:
    from gn_det.workbench.loading.data_files import read_as_data

    module.CheckpointLoader.register_scheme(
        ('', *_NETWORK, *_STORES, _PAVI), load_from_gn_det, force=True
    )
    read_as_data()


# mmengine's log names a loader by what follows `load_from_`.
def load_from_gn_det(filename: str, map_location: Any = None) -> dict:
    """What mmengine gets of a checkpoint: without what it would run, or delete."""
    from gn_det.workbench.loading.disarming import disarmed

    global _held
    content = _kept(filename)
    if content is None:
        content = read(filename, map_location)
    else:
        _held = None
    folder = _run_folder
    if folder is None and '://' not in filename:
        folder = Path(filename).expanduser().parent
    return disarmed(content, filename, folder, _is_trusted(filename))


def confine_to(folder: str | Path) -> None:
    """Let the state of a checkpoint name files of this folder only from now on.

    A run that goes on in another folder than that of its checkpoint so leaves the files
    of the run it branched from alone.
    """
    global _run_folder
    _run_folder = Path(folder)


def peek(filename: str) -> dict:
    """A checkpoint to look at and leave as it is, which mmengine is to load next.

    It is read once: kept until mmengine takes it, another one is looked at, or the file
    is another.
    """
    global _held
    content = _kept(filename)
    if content is None:
        # Not two in memory.
        _held = None
        content = read(filename)
        _held = filename, _state(filename), content
    return content


def _kept(filename: str) -> dict | None:
    if _held is None or _held[:2] != (filename, _state(filename)):
        return None
    return _held[2]


def _state(filename: str) -> Any:
    """By what a file of this machine is seen to be another; the rest has digests."""
    try:
        status = os.stat(os.path.expanduser(filename))
    except (OSError, ValueError):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, _is_trusted(filename)


def read(filename: str, map_location: Any = 'cpu') -> dict:
    """The content of a checkpoint file, or address of any scheme of mmengine's.

    Files of this machine are read with full rights after `trust_local_files()`; what
    comes from elsewhere never is.

    Raises:
        UserError: as `load_file`, and for files of other programs, which are named.
    """
    from gn_det.workbench.loading.files import load_file, load_torch

    if filename.startswith(_NETWORK):
        path = _fetch(filename)
        # A name in the user's own table may stand for a file that nobody has checked.
        is_checked = filename.startswith(('http://', 'https://'))
        content = load_file(path, map_location=map_location, digest_known=is_checked)
    elif any(re.match(prefix, filename) for prefix in _STORES):
        from mmengine.fileio import get_file_backend

        store = get_file_backend(filename, backend_args={'backend': 'petrel'})
        file = io.BytesIO(store.get(filename))
        content = load_torch(file, map_location=map_location, name=filename)
    elif filename.startswith(_PAVI):
        raise UserError(f'{filename}: pavi:// is not supported; name the file itself')
    else:
        content = load_file(
            os.path.expanduser(filename),
            trust=_is_trusted(filename),
            map_location=map_location,
        )
    content = _of_mmengine(content, filename)
    if filename.startswith('mmcls://'):
        from mmengine.runner.checkpoint import _process_mmcls_checkpoint

        return _process_mmcls_checkpoint(content)
    return content


def _is_trusted(filename: str) -> bool:
    from gn_det.workbench.loading.files import local_files_are_trusted

    return '://' not in filename and local_files_are_trusted()


def _of_mmengine(content: Any, name: str) -> dict:
    """A checkpoint with the names of a plain model; files of others are named."""
    import numpy as np

    from gn_det.workbench.loading.weights import plain_names

    if not isinstance(content, dict):
        raise UserError(f'{name} holds a {type(content).__name__}, not a checkpoint')
    for key, program in (('blobs', 'Detectron'), ('model', 'detectron2')):
        values = content.get(key)
        if isinstance(values, dict) and any(
            isinstance(value, np.ndarray) for value in values.values()
        ):
            raise UserError(
                f'{name} is a file of {program}; convert it first with '
                f'gn-det convert {name} OUT.pth --from {program.lower()}'
            )
    try:
        if not isinstance(content.get('state_dict'), dict):
            return plain_names(content)
        content['state_dict'] = plain_names(content['state_dict'])
    except UserError as error:
        raise UserError(f'{name} {error}') from error
    return content

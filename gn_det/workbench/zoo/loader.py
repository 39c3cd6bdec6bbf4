"""mmengine's checkpoint loader with our downloads, and no more rights than needed.

`init_cfg`, `load_from`, `--resume` and the inferencers all ask mmengine's
`CheckpointLoader`. Its own loaders unpickle what they get with full rights (mmengine
0.10.7 from the network, the OneDL fork wherever the restricted load fails) and keep a
file without looking at its digest. Each scheme is registered again here.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from gn_det.workbench.errors import UserError

_MODULE = 'mmengine.runner.checkpoint'


def install() -> None:
    """Register the loaders; calling it again changes nothing.

    mmengine's Runner is not imported for it: where it is not there yet, they are
    registered when it comes.
    """
    if _MODULE in sys.modules:
        _register(sys.modules[_MODULE])
    elif not any(isinstance(finder, _Watcher) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watcher())


class _Watcher(importlib.abc.MetaPathFinder):
    """Registers the loaders as soon as mmengine's module has been imported."""

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
    loaders: dict[tuple[str, ...], Callable] = {
        ('',): load_from_local,
        ('http://', 'https://'): load_from_http,
        ('open-mmlab://', 'openmmlab://'): load_from_openmmlab,
        ('torchvision://', 'modelzoo://'): load_from_torchvision,
        ('mmcls://',): load_from_mmcls,
        (r'(\S+\:)?s3://', r'(\S+\:)?petrel://'): load_from_ceph,
        ('pavi://',): load_from_pavi,
    }
    for prefixes, loader in loaders.items():
        module.CheckpointLoader.register_scheme(prefixes, loader, force=True)


# mmengine's log names a loader by what follows `load_from_`.


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """A file of this machine; with `trust_local_files()` with full rights."""
    from gn_det.workbench.loading.files import load_file, local_files_are_trusted

    path = os.path.expanduser(filename)
    content = load_file(
        path, trust=local_files_are_trusted(), map_location=map_location
    )
    return _loadable(content, path)


def load_from_http(filename: str, map_location: Any = None) -> Any:
    """A file of the network, through the cache; never with full rights."""
    from gn_det.workbench.loading.files import load_file

    path = _download_once(filename)
    return _loadable(load_file(path, map_location=map_location), path)


def load_from_openmmlab(filename: str, map_location: Any = None) -> Any:
    """`open-mmlab://KEY`, by mmengine's table."""
    from mmengine.runner.checkpoint import _get_mmengine_home

    from gn_det.workbench.zoo.sources import WEB_PREFIXES, hub_address

    address = hub_address(filename)
    if address.startswith(WEB_PREFIXES):
        return load_from_http(address, map_location)
    # A table of the user's own in MMENGINE_HOME may name files beside it.
    return load_from_local(os.path.join(_get_mmengine_home(), address), map_location)


def load_from_torchvision(filename: str, map_location: Any = None) -> Any:
    """`torchvision://NAME`, by the addresses torchvision gives."""
    from mmengine.runner.checkpoint import get_torchvision_models

    return load_from_http(_known(filename, get_torchvision_models()), map_location)


def load_from_mmcls(filename: str, map_location: Any = None) -> Any:
    """`mmcls://NAME`: the backbone of a classifier of mmpretrain."""
    from mmengine.runner.checkpoint import _process_mmcls_checkpoint, get_mmcls_models

    address = _known(filename, get_mmcls_models())
    return _process_mmcls_checkpoint(load_from_http(address, map_location))


def load_from_ceph(filename: str, map_location: Any = None) -> Any:
    """A file of an object store (`s3://`, `petrel://`), through mmengine's client."""
    from mmengine.fileio import get_file_backend

    from gn_det.workbench.loading.files import load_torch

    store = get_file_backend(filename, backend_args={'backend': 'petrel'})
    content = io.BytesIO(store.get(filename))
    return load_torch(content, map_location=map_location, name=filename)


def load_from_pavi(filename: str, map_location: Any = None) -> Any:
    """Not supported: its client hands over files that mmengine fully trusts."""
    raise UserError(f'{filename}: pavi:// is not supported; name the file itself')


def _known(filename: str, addresses: dict[str, str]) -> str:
    _, name = filename.split('://', 1)
    if name not in addresses:
        raise UserError(f'{filename}: mmengine knows no model of that name')
    return addresses[name]


def _download_once(url: str) -> Path:
    """Download in the first process of a distributed run while the others wait.

    Each machine has a cache of its own, so the others then ask for the file as well.
    Whatever goes wrong in the first is raised in all, which would wait for it forever.
    """
    from mmengine.dist import broadcast_object_list, get_dist_info

    from gn_det.workbench.zoo.download import download
    from gn_det.workbench.zoo.web_address import without_password

    rank, world_size = get_dist_info()
    if world_size == 1:
        return download(url)
    failure: list[str | None] = [None]
    if rank == 0:
        try:
            download(url)
        except UserError as error:
            failure[0] = str(error)
        except Exception as error:
            failure[0] = (
                f'the first process cannot download {without_password(url)}: {error!r}'
            )
            broadcast_object_list(failure)
            raise
    broadcast_object_list(failure)
    if failure[0] is not None:
        raise UserError(failure[0])
    return download(url, progress=False)


def _loadable(content: Any, path: str | Path) -> Any:
    """A checkpoint as mmengine takes it; files of other programs are named."""
    if not isinstance(content, dict):
        raise UserError(f'{path} holds a {type(content).__name__}, not a checkpoint')
    for key, program in (('blobs', 'Detectron'), ('model', 'detectron2')):
        values = content.get(key)
        if isinstance(values, dict) and any(
            isinstance(value, np.ndarray) for value in values.values()
        ):
            raise UserError(
                f'{path} is a file of {program}; convert it first with '
                f'python tools/convert.py {path} OUT.pth --from {program.lower()}'
            )
    return content

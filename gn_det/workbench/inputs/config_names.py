"""Configs by name, for people who have no folder of configs."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from gn_det.workbench.errors import UserError

PACKAGE = 'gn_det'


def find_config(name: str) -> str:
    """Where a config lies.

    Args:
        name: the path of a file; `PACKAGE::PATH` for a config that an installed package
            brings in `.mim/configs`; or the name of a model of the zoo. A file comes
            first. What is none of them is returned as it is.

    Raises:
        UserError: if there is no such package, or it has no configs.
    """
    if os.path.isfile(name):
        return name
    package, separator, path = name.partition('::')
    if separator:
        path = path if path.endswith('.py') else f'{path}.py'
        return str(_configs(package, name) / path)
    named = [path for path in packaged_configs() if path.stem == name]
    return str(named[0]) if named else name


def packaged_configs() -> list[Path]:
    """The zoo's configs as they are installed, without the parts they share."""
    folder = _configs(PACKAGE, PACKAGE)
    return sorted(p for p in folder.glob('*/*.py') if p.parent.name != '_base_')


def _configs(package: str, name: str) -> Path:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    for root in (spec and spec.submodule_search_locations) or ():
        folder = Path(root, '.mim', 'configs')
        if folder.is_dir():
            return folder
    reason = f'{package} has no configs' if spec else f'there is no package {package!r}'
    raise UserError(f'config not found: {name}: {reason}')

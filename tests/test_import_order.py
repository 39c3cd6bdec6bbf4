"""Imports run one way: a package knows only those below it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import gn_det

PACKAGE = Path(gn_det.__file__).parent
PLUGIN = (
    'version', 'compat', 'ops', 'layers', 'override', 'fusion', 'conversion', 'models',
)  # fmt: skip
# From the bottom up. `__init__` stands outside: it puts the plugin together. `registry`
# and `utils` come late: mmengine looks for a package's modules under these two names.
ORDERS = {
    'gn_det': (*PLUGIN, 'workbench', 'registry', 'utils', '__main__'),
    'gn_det.workbench': (
        'errors',
        'atomic_files',
        'loading',
        'datasets',
        'inputs',
        'zoo',
        'own_data',
        'evaluation',
        'report',
        'inference',
        'onnx_export',
        'warmup',
        'runtime',
        'inspection',
    ),
}
HOSTS = ('mmcv', 'mmengine', 'mmdet')

each_package = pytest.mark.parametrize('package', ORDERS)


def imported_modules(path: Path) -> Iterator[str]:
    """Full names of what a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from (f'{node.module}.{alias.name}' for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def folder_of(package: str) -> Path:
    return PACKAGE.parent.joinpath(*package.split('.'))


@each_package
def test_every_part_has_its_place(package):
    folder = folder_of(package)
    parts = {path.stem for path in folder.glob('*.py')}
    parts |= {path.parent.name for path in folder.glob('*/__init__.py')}
    assert parts - {'__init__'} == set(ORDERS[package])


@each_package
def test_no_part_knows_one_above_it(package):
    order = ORDERS[package]
    depth = package.count('.') + 1
    folder = folder_of(package)
    upward = [
        f'{path.relative_to(folder)} imports {name}'
        for rank, part in enumerate(order)
        for path in [folder / f'{part}.py', *(folder / part).rglob('*.py')]
        if path.is_file()
        for name in imported_modules(path)
        if name.startswith(f'{package}.')
        and name.split('.')[depth] in order[rank + 1 :]
    ]
    assert upward == []


def test_only_the_module_that_is_run_knows_the_command():
    found = [
        path.name
        for path in PACKAGE.rglob('*.py')
        for name in imported_modules(path)
        if name.startswith('gn_det_cli') and '.mim' not in path.parts
    ]
    assert found == ['__main__.py']


def test_op_and_layers_know_no_host_library():
    modules = [
        name
        for part in ('ops', 'layers')
        for path in (PACKAGE / part).rglob('*.py')
        for name in imported_modules(path)
    ]
    assert [name for name in modules if name.split('.')[0] in HOSTS] == []

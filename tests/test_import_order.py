"""Imports run one way: a package knows only those below it."""

from __future__ import annotations

import ast
from pathlib import Path

import gn_det

PACKAGE = Path(gn_det.__file__).parent
# From the bottom up. `__init__` stands outside: it puts the plugin together.
ORDER = (
    'version',
    'errors',
    'atomic_files',
    'compat',
    'registry',
    'ops',
    'layers',
    'override',
    'fusion',
    'datasets',
    'inputs',
    'zoo',
    'models',
    'evaluation',
    'report',
    'inference',
    'runtime',
    'utils',
)


def imported(path: Path) -> set[str]:
    """The parts of gn_det that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == 'gn_det':
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module.startswith('gn_det.'):
            found.add(node.module.split('.')[1])
        elif isinstance(node, ast.Import):
            names = [alias.name.split('.') for alias in node.names]
            found |= {name[1] for name in names if name[0] == 'gn_det' and name[1:]}
    return found


def test_every_part_has_its_place():
    parts = {path.stem for path in PACKAGE.glob('*.py')}
    parts |= {path.parent.name for path in PACKAGE.glob('*/__init__.py')}
    assert parts - {'__init__'} == set(ORDER)


def test_no_part_knows_one_above_it():
    upward = [
        f'{path.relative_to(PACKAGE)} imports gn_det.{name}'
        for rank, part in enumerate(ORDER)
        for path in [PACKAGE / f'{part}.py', *(PACKAGE / part).rglob('*.py')]
        if path.is_file()
        for name in imported(path)
        if name in ORDER and ORDER.index(name) > rank
    ]
    assert upward == []


def test_the_op_knows_no_host_library():
    modules = [
        name
        for path in (PACKAGE / 'ops').rglob('*.py')
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [node.module]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
    ]
    hosts = ('mmcv', 'mmengine', 'mmdet')
    assert [name for name in modules if name.split('.')[0] in hosts] == []

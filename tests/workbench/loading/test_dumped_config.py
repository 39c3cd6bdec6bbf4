"""A dumped config is read as data: the same settings, and nothing of it runs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from mmengine.config import Config

from gn_det.workbench.errors import UserError
from gn_det.workbench.loading.dumped_config import parse_config, read_config

# The zoo's own leaves, and what mmengine dumps in other ways.
LEAVES = sorted(Path('configs/quickstart').glob('*.py'))[:1]
LEAVES += sorted(Path('configs/gn').glob('*.py'))[:1]
ODD = dict(
    model=dict(type='A', sizes=[(1, 2.5), [3]], off=None, on=True, low=-1e-3),
    mapping={'a.b': dict(x=1), '3': 'it\'s "so"'},
    never=math.inf,
    empty={},
    colours=[(1, -2, 3)],
)


@pytest.mark.parametrize('leaf', LEAVES, ids=str)
def test_dump_of_a_config_reads_as_mmengine_reads_it(leaf, tmp_path):
    cfg = Config.fromfile(leaf)
    cfg.dump(tmp_path / 'config.py')
    wanted = Config.fromfile(tmp_path / 'config.py', import_custom_modules=False)
    assert read_config(tmp_path / 'config.py').to_dict() == wanted.to_dict()


def test_values_of_every_kind():
    assert parse_config(Config(ODD).pretty_text) == ODD


def test_classes_are_names():
    text = 'hook=dict(type=torch.optim.SGD, kind=dict)'
    assert parse_config(text) == {'hook': {'type': 'torch.optim.SGD', 'kind': 'dict'}}


PAYLOADS = [
    "import os; os.mkdir('pwned')",
    "a = __import__('os').mkdir('pwned')",
    "a = [x for x in (open('pwned', 'w'),)]",
    "a = dict(open('pwned', 'w'))",
    "a = dict(**{'b': open('pwned', 'w')})",
    "a = f'{open(chr(112), chr(119))}'",
    "a = -open('pwned', 'w')",
    "a = {open('pwned', 'w'): 1}",
    "a: open('pwned', 'w') = 1",
    'a = ().__class__.__base__.x',
    "a['b'] = 1",
    'a = b = 1',
    'a = {**b}',
    'a = {[]: 1}',
    'a = -[1]',
    'a = ...',
    'with read_base():\n    from .b import *',
    'def a(): pass',
    'a = (',
    'a = ' + '[' * 5000 + ']' * 5000,
    'a = ' + '-' * 100_000 + '1',
    'a = 1' + '+1' * 100_000,
    'a = "\0"',
    'a' * 2**23,
]


@pytest.mark.parametrize('text', PAYLOADS, ids=lambda text: text[:30])
def test_nothing_runs_and_one_line_says_why(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'config.py').write_text(text)
    with pytest.raises(UserError, match=r'config\.py is no config that a run') as error:
        read_config('config.py')
    assert '\n' not in str(error.value)
    assert len(str(error.value)) < 300
    assert [path.name for path in tmp_path.iterdir()] == ['config.py']


def test_base_files_and_modules_that_it_names_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'evil.py').write_text(f"open({str(tmp_path / 'pwned')!r}, 'w')")
    (tmp_path / 'config.py').write_text(
        "_base_ = 'evil.py'\ncustom_imports = dict(imports=['evil'])\n"
    )
    assert read_config(tmp_path / 'config.py')._base_ == 'evil.py'
    assert not (tmp_path / 'pwned').exists()


@pytest.mark.parametrize('content', [None, b'\xff\xfe'])
def test_file_that_cannot_be_read(content, tmp_path):
    if content:
        (tmp_path / 'a.py').write_bytes(content)
    with pytest.raises(UserError, match=r'cannot read the config .*a\.py: '):
        read_config(tmp_path / 'a.py')

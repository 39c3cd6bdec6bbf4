"""A wheel carries configs and tools: its command works, and OpenMMLab's tools find the
models; an editable install is found from everywhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest

from tests.configs.zoo import LEAVES
from tests.running import CONFIG, REPOSITORY, SMALL

SOURCES = ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE', 'model-index.yml')
R50 = 'gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py'
ASK = """
import json, sys
import gn_det
from mmengine.config import Config
from mmengine.hub import get_config, get_model
from mmdet.apis import DetInferencer
from gn_det.workbench.zoo import find

R50 = 'gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py'
with open('child.py', 'w') as child:
    child.write(f"_base_ = 'gn_det::{R50}'")
hub = get_config(f'gn_det::{R50}', pretrained=True)
small = 'mask-rcnn_r18_fpn_gn-all_coco-overfit'
model = get_model(f'gn_det::quickstart/{small}.py')
inferencer = DetInferencer(model=small, scope='gn_det', device='cpu')
answers = dict(
    package=gn_det.__file__,
    hub=hub.filename,
    weights=hub.model_path,
    model=[type(model).__name__, type(model.backbone.gn1).__name__],
    child=Config.fromfile('child.py').model.neck.norm_cfg.type,
    inferencer=type(inferencer.model).__name__,
    names=DetInferencer.list_models('gn_det'),
    by_name=[
        [cfg.model.type, weights]
        for cfg, weights in map(inferencer._load_model_from_metafile, sys.argv[1:])
    ],
    index=str(find('mask-rcnn_r50_fpn_gn-all_2x_coco').config_path),
)
with open('answers.json', 'w') as file:
    json.dump(answers, file)
"""
NAMES = ('mask-rcnn_r50_fpn_gn-ws-all_2x_coco', 'mask-rcnn_r50_fpn_gn-all_ms-3x_coco')


@pytest.fixture(scope='module')
def source(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, named as a clone is."""
    pytest.importorskip('setuptools', reason='building a wheel needs setuptools')
    source = tmp_path_factory.mktemp('clones') / 'gn_det'
    source.mkdir()
    for name in SOURCES:
        shutil.copy(repository / name, source)
    for name in ('gn_det', 'gn_det_cli', 'configs', 'tools'):
        shutil.copytree(
            repository / name,
            source / name,
            symlinks=True,
            ignore=shutil.ignore_patterns('__pycache__'),
        )
    return source


@pytest.fixture(scope='module')
def installed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the wheel lies in a virtual environment of its own."""
    root = tmp_path_factory.mktemp('wheel')
    options = ('--quiet', '--no-index', '--no-deps', '--no-build-isolation')
    run(sys.executable, '-m', 'pip', 'wheel', *options, '-w', root, source, cwd=root)
    (wheel,) = root.glob('*.whl')
    return install(root / 'venv', wheel)


def install(environment: Path, *what: object) -> Path:
    """Install into a new environment; returns where its packages are.

    It has this one's libraries, but not what `.pth` files add to this one, such as the
    checkout.
    """
    run(sys.executable, '-m', 'venv', '--without-pip', environment, cwd='/')
    (site,) = environment.glob('lib/python*/site-packages')
    (site / 'libraries.pth').write_text(sysconfig.get_path('purelib'))
    run(
        sys.executable, '-m', 'pip', '--python', environment / 'bin' / 'python',
        'install', '--quiet', '--no-index', '--no-deps', '--no-build-isolation',
        '--ignore-installed', '--no-compile', *what, cwd='/',
    )  # fmt: skip
    return site


def run(*command: object, cwd: Path | str) -> str:
    """Run a command that does not see the checkout; all that it says."""
    path = os.environ.get('PYTHONPATH', '').split(os.pathsep)
    path = [entry for entry in path if entry and Path(entry).resolve() != REPOSITORY]
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.fixture(scope='module')
def python(installed: Path) -> Path:
    """The interpreter of the environment."""
    return installed.parents[2] / 'bin' / 'python'


@pytest.fixture(scope='module')
def home(installed: Path) -> Path:
    """A folder without a checkout above or in it."""
    home = installed.parents[3] / 'elsewhere'
    home.mkdir()
    return home


@pytest.fixture(scope='module')
def answers(python: Path, home: Path) -> dict:
    """What the host libraries say of the installed wheel, away from the checkout."""
    run(python, '-c', ASK, *NAMES, cwd=home)
    return json.loads((home / 'answers.json').read_text())


def test_wheel_has_every_config_metafile_and_tool(installed, repository):
    packed = installed / 'gn_det' / '.mim'
    assert not any(path.is_symlink() for path in packed.rglob('*'))
    wanted = {
        path.relative_to(repository)
        for kind in ('py', 'yml')
        for path in (repository / 'configs').rglob(f'*.{kind}')
    }
    wanted |= {
        path.relative_to(repository)
        for kind in ('py', 'sh')
        for path in (repository / 'tools').glob(f'*.{kind}')
    }
    found = {path.relative_to(packed) for path in packed.rglob('*') if path.is_file()}
    assert found == {*wanted, Path('model-index.yml')}


def test_configs_resolve_from_the_wheel(answers, installed):
    assert answers['package'].startswith(str(installed))
    assert answers['hub'] == str(installed / 'gn_det/.mim/configs' / R50)
    assert answers['weights'].endswith('-8eee02a6.pth')
    assert answers['model'] == ['FusedMaskRCNN', 'FusedGroupNorm']
    assert answers['child'] == 'FusedGN'
    assert answers['index'] == answers['hub']


def test_inferencers_find_the_models_by_name(answers):
    assert answers['inferencer'] == 'FusedMaskRCNN'
    assert len(answers['names']) == len(LEAVES)
    standardised, detectron2 = answers['by_name']
    assert standardised[0] == detectron2[0] == 'FusedMaskRCNN'
    assert standardised[1].endswith('-16acb762.pth')
    assert detectron2[1] is None, 'mmdet cannot load the file as it is'


def test_mim_finds_the_package_of_the_distribution(installed):
    """It takes the first name of the top level."""
    (distribution,) = metadata.distributions(path=[str(installed)])
    assert distribution.name == 'gn-detection'
    assert distribution.read_text('top_level.txt').split() == ['gn_det', 'gn_det_cli']


def test_the_command_works_without_a_checkout(installed, python, home):
    def command(*words: object) -> str:
        said = run(*words, cwd=home)
        assert 'OneDL' not in said
        return said

    gn_det, name = python.with_name('gn-det'), Path(CONFIG).stem
    assert Path(R50).stem in command(gn_det, 'zoo', 'list')
    size = ('--num-train', 12, '--num-val', 4, '--height', 64, '--width', 64)
    assert 'wrote data' in command(gn_det, 'shapes', 'data', *size)
    options = ('--cfg-options', 'data_root=data', *SMALL)
    assert 'Report: ' in command(gn_det, 'train', name, *options)
    checkpoint = home / 'work_dirs' / name / 'epoch_2.pth'
    assert 'box' in command(gn_det, 'test', name, checkpoint, *options)
    command(gn_det, 'demo', 'data/val', name, checkpoint, '--out-dir', 'found')
    assert len(json.loads((home / 'found/predictions.json').read_text())['images']) == 4
    # As mim starts it.
    packed = installed / 'gn_det' / '.mim'
    config = packed / 'configs' / 'quickstart' / f'{name}.py'
    words = (packed / 'tools' / 'test.py', config, checkpoint, '--launcher', 'none')
    assert 'box' in command(python, *words, *options)


def test_an_editable_install_is_found_from_the_folder_above_the_clone(source, tmp_path):
    site = install(tmp_path / 'venv', '--editable', source)
    said = run(
        site.parents[2] / 'bin' / 'python',
        '-c', 'import gn_det; print(gn_det.__file__, gn_det.fuse)', cwd=source.parent,
    )  # fmt: skip
    assert said.startswith(f'{source}/gn_det/__init__.py <function fuse ')


def test_the_checkouts_links_lead_to_its_configs(repository):
    """So an editable install and a bare checkout have what a wheel has."""
    mim = repository / 'gn_det' / '.mim'
    assert (mim / 'configs').resolve() == repository / 'configs'
    assert (mim / 'model-index.yml').resolve() == repository / 'model-index.yml'

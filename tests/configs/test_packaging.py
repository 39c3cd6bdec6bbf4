"""A wheel carries the configs, and OpenMMLab's own tools find the models once it is
installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.configs.zoo import LEAVES

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
def installed(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from a copy of the sources, installed by pip."""
    pytest.importorskip('setuptools', reason='building a wheel needs setuptools')
    root = tmp_path_factory.mktemp('wheel')
    source, site = root / 'source', root / 'site'
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
    build = 'from setuptools.build_meta import build_wheel; build_wheel("..")'
    run_python('-c', build, cwd=source)
    (wheel,) = root.glob('*.whl')
    options = ('--no-index', '--no-deps', '--no-compile', '--target', site)
    run_python('-m', 'pip', 'install', '--quiet', *options, wheel, cwd=root)
    return site


def run_python(*arguments: object, cwd: Path, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope='module')
def answers(installed: Path) -> dict:
    """What the host libraries say of the installed wheel, away from the checkout."""
    home = installed.parent / 'elsewhere'
    home.mkdir()
    path = [str(installed), os.environ.get('PYTHONPATH')]
    path = os.pathsep.join(filter(None, path))
    run_python('-c', ASK, *NAMES, cwd=home, PYTHONPATH=path)
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


def test_the_checkouts_links_lead_to_its_configs(repository):
    """So an editable install and a bare checkout have what a wheel has."""
    mim = repository / 'gn_det' / '.mim'
    assert (mim / 'configs').resolve() == repository / 'configs'
    assert (mim / 'model-index.yml').resolve() == repository / 'model-index.yml'

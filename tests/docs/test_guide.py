"""The user guide, read as a user does: every command is run, every snippet executed.

They run in a sandbox that looks like the checkout, where the R-50 config of the guide
is a small model on generated shapes, "8 GPUs" are two processes, and the published
weights are those trained a few commands before, on a server of this machine.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import HOOKS, VISBACKENDS

from gn_det.workbench.datasets import ShapesSpec, generate_shapes
from gn_det_cli.main import main
from tests.running import REPOSITORY, environment
from tests.workbench.zoo.server import Server, hashed_name, serve

GUIDE = REPOSITORY / 'docs' / 'guide.md'
R50 = 'configs/gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py'
# On a free port: a killed test's may be taken yet.
TORCHRUN = 'torchrun --standalone --nproc-per-node'
HOST = 'https://download.openmmlab.com/'
FOLDER = 'mmdetection/v2.0/gn/mask_rcnn_r50_fpn_gn-all_2x_coco/'
STEM, HASH = 'mask_rcnn_r50_fpn_gn-all_2x_coco_20200206', '8eee02a6'
PUBLISHED = f'checkpoints/{STEM}-{HASH}.pth'
# What stands in for the R-50 config, with one epoch on a dozen images of 64 × 64.
STAND_IN = """_base_ = '../quickstart/mask-rcnn_r18_fpn_gn-all_shapes.py'
data_root = 'data/coco/'
train_cfg = dict(max_epochs=1, val_interval=1)
param_scheduler = [dict(type='ConstantLR', factor=1.0)]
default_hooks = dict(checkpoint=dict(interval=1))
for_all = dict(dataset=dict(data_root=data_root))
train_dataloader = for_all
val_dataloader = for_all
test_dataloader = for_all
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf'^```{language}\n(.*?)^```', GUIDE.read_text(), re.S | re.M)


def commands() -> list[str]:
    return [line for block in blocks('bash') for line in block.splitlines() if line]


def snippet(word: str) -> str:
    """The one Python block of the guide that contains this word."""
    (found,) = [block for block in blocks('python') if word in block]
    return found


@pytest.fixture(scope='module')
def sandbox(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('guide')
    (root / 'tools').symlink_to(REPOSITORY / 'tools')
    # The zoo's index is the package's own: its copy lists what the sandbox has.
    shutil.copytree(
        REPOSITORY / 'gn_det', root / 'gn_det', symlinks=True,
        ignore=shutil.ignore_patterns('__pycache__'),
    )  # fmt: skip
    for name in ('configs', 'model-index.yml'):
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, root / name)
    (root / R50).write_text(STAND_IN)
    spec = ShapesSpec(num_train=12, num_val=4, height=64, width=64)
    generate_shapes(root / 'data' / 'coco', spec)
    own = snippet("data_root = 'data/mine/'")
    base = "_base_ = 'gn_det::gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py'"
    assert base in own
    (root / 'configs' / 'mine.py').write_text(
        own.replace(base, f"_base_ = '{R50.removeprefix('configs/')}'")
    )
    return root


def run(sandbox: Path, command: str, **extra: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(Path(os.sys.executable).parent), os.environ['PATH']])
    given = environment()
    packages = os.pathsep.join([str(sandbox), given['PYTHONPATH']])
    return subprocess.run(
        shlex.split(command),
        cwd=sandbox,
        env={**given, 'PYTHONPATH': packages, 'PATH': path, **extra},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def small(command: str) -> str:
    """The command on this machine: two processes for 8 GPUs, few generated images."""
    command = re.sub(r'^torchrun --nproc-per-node \d+', f'{TORCHRUN} 2', command)
    if command.startswith('gn-det shapes'):
        command += ' --num-train 12 --num-val 4 --height 64 --width 64'
    if command.startswith('gn-det init'):
        start = f'work_dirs/{Path(R50).stem}/epoch_1.pth'
        command += f' --epochs 1 --overwrite --load-from {start}'
    return command


def prepare(sandbox: Path, command: str) -> None:
    """What a user would have by then: weeks trained, photos."""
    work_dir = sandbox / 'work_dirs' / Path(R50).stem
    if 'epoch_24.pth' in command:
        shutil.copy(work_dir / 'epoch_1.pth', work_dir / 'epoch_24.pth')
    if ' photos ' in command and not (sandbox / 'photos').exists():
        shutil.copytree(sandbox / 'data' / 'coco' / 'val', sandbox / 'photos')


def publish(sandbox: Path, server: Server) -> str:
    """Put the trained weights where the sandbox's zoo has them; returns their hash."""
    content = (sandbox / 'work_dirs' / Path(R50).stem / 'epoch_1.pth').read_bytes()
    name = hashed_name(content, STEM)
    server.add(f'/{FOLDER}{name}', content)
    digits = name.removeprefix(f'{STEM}-').removesuffix('.pth')
    metafile = sandbox / 'configs' / 'gn' / 'metafile.yml'
    assert f'{HOST}{FOLDER}{STEM}-{HASH}.pth' in metafile.read_text()
    metafile.write_text(metafile.read_text().replace(HASH, digits))
    return digits


@pytest.mark.slow
def test_every_command_runs(sandbox):
    digits, reached = HASH, {'GN_DET_OFFLINE': '1'}
    with serve() as server:
        for command in commands():
            prepare(sandbox, command)
            if 'zoo download' in command:
                digits = publish(sandbox, server)
                reached = {
                    'GN_DET_MIRRORS': f'{HOST}={server.address}/',
                    'GN_DET_OFFLINE': '0',
                    'NO_PROXY': '127.0.0.1',
                }
            done = run(sandbox, small(command).replace(HASH, digits), **reached)
            said = f'{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}'
            assert done.returncode == 0, said
            assert 'Traceback' not in done.stderr, said
    assert (sandbox / PUBLISHED.replace(HASH, digits)).is_file()
    assert [request.path for request in server.requests] == list(server.answers)
    assert (sandbox / 'work_dirs' / Path(R50).stem / 'report.html').is_file()
    assert (sandbox / 'work_dirs' / 'mine' / 'last_checkpoint').is_file()


def test_the_guide_has_the_commands_people_start_with():
    text = '\n'.join(commands())
    found = set(re.findall(r'(?:gn-det|-m gn_det) (\w+)', text))
    assert found == {
        'browse', 'demo', 'info', 'init', 'publish', 'report', 'shapes', 'test',
        'train', 'zoo',
    }  # fmt: skip


def test_own_config_is_what_init_writes(tmp_path, monkeypatch):
    """But for the numbers, which are those of the set as it is generated."""
    monkeypatch.chdir(tmp_path)
    spec = ShapesSpec(num_train=2, num_val=1, height=64, width=64, crowd_fraction=0)
    generate_shapes(Path('data/mine'), spec)
    main(['init', 'data/mine'])
    written = Path('configs/mine.py').read_text()
    number = re.compile(r'[\d.]+(?=[ ,)\n])')
    shown = snippet("data_root = 'data/mine/'")
    assert number.sub('0', written) == number.sub('0', shown)


def test_lines_people_add():
    """They fit a config that `init` wrote; what they name can be built."""
    own = snippet("data_root = 'data/mine/'") + snippet('EarlyStoppingHook')
    cfg = Config.fromstring(own, file_format='.py')
    assert cfg.optim_wrapper.optimizer.type == 'SGD'
    for hook in cfg.custom_hooks:
        settings = {k: v for k, v in hook.items() if k != '_scope_'}
        assert HOOKS.build(settings).priority
    names = [backend.type for backend in cfg.visualizer.vis_backends]
    assert all(VISBACKENDS.get(name) for name in names)
    assert cfg.visualizer.type == 'DetLocalVisualizer'


def test_own_config_is_the_zoo_config_with_other_data():
    """The snippet as it stands, on the packaged base."""
    path = REPOSITORY / 'configs' / 'gn' / Path(R50).name
    own = Config.fromstring(snippet("data_root = 'data/mine/'"), file_format='.py')
    base = Config.fromfile(path)
    assert own.model.backbone == base.model.backbone
    assert own.model.roi_head.mask_head.num_classes == 3


def test_inferencer_by_name(sandbox, tmp_path, monkeypatch):
    """The snippet with a small model, whose weights are random."""
    photo = next((sandbox / 'data' / 'coco' / 'val').iterdir())
    shutil.copy(photo, tmp_path / 'photo.jpg')
    monkeypatch.chdir(tmp_path)
    text = snippet('DetInferencer')
    name = 'mask-rcnn_r50_fpn_gn-all_2x_coco'
    assert name in text
    exec(text.replace(name, 'mask-rcnn_r18_fpn_gn-all_shapes'), {})
    assert (tmp_path / 'found' / 'vis' / 'photo.jpg').is_file()


def test_config_and_model_from_the_hub():
    found = {}
    with torch.device('meta'):
        exec(snippet('mmengine.hub'), found)
    assert found['cfg'].model.type == type(found['model']).__name__ == 'FusedMaskRCNN'


def test_mmengines_limits_of_names():
    """When these work, the guide may say so."""
    with pytest.raises(FileNotFoundError):
        Config.fromfile(f'gn_det::{R50.removeprefix("configs/")}')
    standardised = 'gn+ws/mask-rcnn_r50_fpn_gn-ws-all_2x_coco.py'
    with pytest.raises(ValueError, match='please specify the package name'):
        Config.fromstring(f"_base_ = 'gn_det::{standardised}'", file_format='.py')


def test_norm_of_an_own_config():
    import gn_det

    register_all_modules()
    model = get_config('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py').model
    own = Config.fromstring(snippet('custom_imports = '), file_format='.py').model
    model.update(own)
    with torch.device('meta'):
        built = MODELS.build(model)
    assert type(built.backbone.gn1) is gn_det.FusedGroupNorm
    assert len(gn_det.fuse(built).add_relu) == 16


def test_snippets_that_convert_and_fuse(sandbox, monkeypatch):
    register_all_modules()
    monkeypatch.chdir(sandbox)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(snippet('gn_det.convert_norm'), {})
        model = MODELS.build(Config.fromfile('configs/mine.py').model)
        exec(snippet('gn_det.fuse(model)'), {'model': model})
    assert 'Group Norm layers' in said.getvalue()

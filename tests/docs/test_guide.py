"""The user guide, read as a user does: every command is run, every snippet executed.

They run in a sandbox that looks like the checkout, where the R-50 config of the guide
is a small model on generated shapes, and "8 GPUs" are two processes.
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
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config

from gn_det.datasets import ShapesSpec, generate_shapes
from tests.running import REPOSITORY, environment

GUIDE = REPOSITORY / 'docs' / 'guide.md'
R50 = 'configs/gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py'
PUBLISHED = 'checkpoints/mask_rcnn_r50_fpn_gn-all_2x_coco_20200206-8eee02a6.pth'
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
    for name in ('tools', 'gn_det'):
        (root / name).symlink_to(REPOSITORY / name)
    shutil.copytree(REPOSITORY / 'configs', root / 'configs')
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


def run(sandbox: Path, command: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(Path(os.sys.executable).parent), os.environ['PATH']])
    return subprocess.run(
        shlex.split(command),
        cwd=sandbox,
        env=environment(PATH=path, GN_DET_OFFLINE='1'),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def small(command: str) -> str:
    """The command on this machine: two processes for 8 GPUs, few generated images."""
    command = re.sub(r'^(tools/dist_\w+\.sh .*?) \d+( --\S+)?$', r'\1 2\2', command)
    if command.startswith('python tools/make_shapes.py'):
        command += ' --num-train 12 --num-val 4 --height 64 --width 64'
    return command


def prepare(sandbox: Path, command: str) -> None:
    """What a user would have by then: weights downloaded, weeks trained, photos."""
    work_dir = sandbox / 'work_dirs' / Path(R50).stem
    trained = work_dir / 'epoch_1.pth'
    if PUBLISHED in command:
        (sandbox / 'checkpoints').mkdir(exist_ok=True)
        shutil.copy(trained, sandbox / PUBLISHED)
    if 'epoch_24.pth' in command:
        shutil.copy(trained, work_dir / 'epoch_24.pth')
    if ' photos ' in command and not (sandbox / 'photos').exists():
        shutil.copytree(sandbox / 'data' / 'coco' / 'val', sandbox / 'photos')


@pytest.mark.slow
def test_every_command_runs(sandbox):
    for command in commands():
        prepare(sandbox, command)
        done = run(sandbox, small(command))
        said = f'{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}'
        if 'zoo.py download' in command:
            # Without a network: one line that says what to do.
            assert done.returncode == 2, said
            assert 'offline' in done.stderr.lower(), said
            continue
        assert done.returncode == 0, said
        assert 'Traceback' not in done.stderr, said
    assert (sandbox / 'work_dirs' / Path(R50).stem / 'report.html').is_file()
    assert (sandbox / 'work_dirs' / 'mine' / 'last_checkpoint').is_file()


def test_the_guide_has_the_commands_of_every_tool():
    text = '\n'.join(commands())
    for tool in REPOSITORY.glob('tools/[a-z]*.*'):
        if tool.name in ('quickstart.py', 'convert.py', 'eval_results.py', 'test.py'):
            continue
        if tool.stem.startswith('slurm'):
            continue
        assert f'tools/{tool.name}' in text, tool.name


def test_own_config_is_the_zoo_config_with_other_data():
    """The snippet as it stands, on the packaged base."""
    path = REPOSITORY / 'configs' / 'gn' / Path(R50).name
    own = Config.fromstring(snippet("data_root = 'data/mine/'"), file_format='.py')
    base = Config.fromfile(path)
    assert own.model.backbone == base.model.backbone
    assert own.param_scheduler == base.param_scheduler
    assert own.model.roi_head.mask_head.num_classes == 3


def test_norm_of_an_own_config():
    from mmcv.cnn import ConvModule

    import gn_det

    cfg = Config.fromstring(snippet('custom_imports = '), file_format='.py')
    block = ConvModule(64, 64, 3, norm_cfg=cfg.norm_cfg)
    assert type(block.norm) is gn_det.FusedGroupNorm


def test_snippets_that_convert_and_fuse(sandbox, monkeypatch):
    register_all_modules()
    monkeypatch.chdir(sandbox)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(snippet('gn_det.convert_norm'), {})
        model = MODELS.build(Config.fromfile('configs/mine.py').model)
        exec(snippet('gn_det.fuse(model)'), {'model': model})
    assert 'Group Norm layers' in said.getvalue()

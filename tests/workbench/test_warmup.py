"""Which kernels a training compiles, how many, and that they are there beforehand."""

import os
import subprocess
import sys

import pytest

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.config import load_config
from gn_det.workbench.warmup import kernels_of_config
from tests.running import call, user_error

SMS = 132
ONE_SCALE = 'mask-rcnn_r50_fpn_gn-all_2x_coco'
SCALES = 'mask-rcnn_r50_fpn_gn-all_ms-3x_coco'


def config_of(name: str, dtype: str, channels_last: bool):
    cfg = load_config(name)
    cfg.model.channels_last = channels_last
    if dtype != 'fp32':
        cfg.optim_wrapper.update(type='AmpOptimWrapper', dtype=dtype)
    return cfg


@pytest.mark.parametrize('channels_last', [False, True], ids=['nchw', 'nhwc'])
@pytest.mark.parametrize('dtype', ['bfloat16', 'fp32'])
def test_a_new_user_waits_for_few_kernels(dtype, channels_last):
    """At most 40 in the first step, at most 120 in an epoch of images of any form."""
    one = config_of(ONE_SCALE, dtype, channels_last)
    first = kernels_of_config(one, SMS, [(800, 1344)])
    assert 20 <= len(first) <= 40
    every = kernels_of_config(config_of(SCALES, dtype, channels_last), SMS)
    assert first < every
    assert len(every) <= 120


WARM = """
import sys
from unittest import mock
import torch
from triton.runtime import driver
from gn_det.ops import group_norm, precompile, triton_launch

def calls(device):
    x = torch.randn(2, 8, 5, 6).to(device).requires_grad_()
    y = group_norm(x, 2, activation='relu', impl='triton')
    torch.autograd.grad(y, x, y.detach())

def run(launch, aligned, *args):
    launch.kernel.run(
        *args, *launch._rest, grid=launch.grid, warmup=True, **launch.options
    )

if __name__ == '__main__':
    if sys.argv[1] == 'warm':
        with precompile.kernels_of(4) as found:
            calls('meta')
        print(len(list(precompile.compile_kernels(found, 90, 2))))
    else:
        driver.set_active(precompile.CompileOnlyDriver(90))
        with (
            mock.patch.object(triton_launch.Launch, '__call__', run),
            mock.patch.object(triton_launch, 'INTERPRETED', True),
        ):
            calls('cpu')
"""


def test_launches_find_what_was_compiled_before(tmp_path):
    """With the arguments of a launch Triton adds nothing to the cache."""
    script, cache = tmp_path / 'warm.py', tmp_path / 'cache'
    script.write_text(WARM)
    environment = {k: v for k, v in os.environ.items() if k != 'TRITON_INTERPRET'}
    environment['TRITON_CACHE_DIR'] = str(cache)

    def python(step: str) -> str:
        done = subprocess.run(
            [sys.executable, str(script), step],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    # Forward, backward, and the first small launch on a device.
    assert python('warm') == '3\n'
    before = sorted(cache.rglob('*.cubin'))
    assert len(before) == 3
    python('launch')
    assert sorted(cache.rglob('*.cubin')) == before


@pytest.mark.parametrize(
    ('words', 'expected'),
    [
        ([], 'no CUDA device here; name the GPU that will train with --arch and --sms'),
        (['--arch', 'sm_90'], '--arch and --sms go together'),
        (['--arch', 'hopper', '--sms', '132'], 'got --arch hopper --sms 132'),
        (['--jobs', '0'], '--jobs: expected a positive number, got 0'),
    ],
)
def test_mistakes(monkeypatch, words, expected):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    assert expected in user_error(call('warmup', ONE_SCALE, *words))


def test_a_model_without_our_norm_and_unknown_sizes():
    cfg = load_config(ONE_SCALE)
    with pytest.raises(UserError, match='has no FusedGN, so there is nothing'):
        kernels_of_config(
            load_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'), SMS
        )
    cfg.train_pipeline = [dict(type='LoadImageFromFile')]
    with pytest.raises(UserError, match='has no Resize or RandomChoiceResize with'):
        kernels_of_config(cfg, SMS)

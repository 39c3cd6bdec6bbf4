"""`import gn_det.override`, in a process of its own because it cannot be undone."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import torch
{first}
from mmengine.utils import import_modules_from_strings
import_modules_from_strings(["gn_det.override"], allow_failed_imports=False)
from mmcv.cnn import ConvModule, build_norm_layer
from gn_det import FusedGroupNorm
layer = ConvModule(4, 8, 1, norm_cfg=dict(type='GN', num_groups=2)).norm
assert type(layer) is FusedGroupNorm, layer
name, _ = build_norm_layer(dict(type='GN', num_groups=2), 8, postfix=3)
assert name == 'gn3', name
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
register_all_modules()
head = MODELS.build(dict(type='FCOSHead', num_classes=2, in_channels=32))
norms = [m for m in head.modules() if isinstance(m, torch.nn.GroupNorm)]
assert norms and all(type(m) is FusedGroupNorm for m in norms), norms
print('overridden')
"""


def run(first: str) -> str:
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT.format(first=first)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_before_mmcv_is_imported():
    assert 'overridden' in run(first='')


def test_after_mmcv_is_imported():
    assert 'overridden' in run(first='import mmcv.cnn')


def test_importing_the_package_alone_changes_nothing():
    script = (
        'import gn_det, mmcv.cnn, torch, sys;'
        'from mmengine.registry import MODELS;'
        "assert MODELS.get('GN') is torch.nn.GroupNorm;"
    )
    subprocess.run([sys.executable, '-c', script], check=True)


def test_importing_the_package_needs_neither_mmcv_nor_mmdet():
    script = (
        'import gn_det, sys; print([m for m in ("mmcv", "mmdet") if m in sys.modules])'
    )
    done = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith('[]')

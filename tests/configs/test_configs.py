"""Configs: same training as upstream's, and every norm of the built model is ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.hub import get_config
from torch import nn

from gn_det import FusedGroupNorm
from gn_det.runtime.config import load_config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
LEAVES = sorted(
    str(path.relative_to(CONFIGS))
    for path in CONFIGS.rglob('*.py')
    if '_base_' not in path.parts
)
R50_2X = 'gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py'


@pytest.fixture(scope='module', autouse=True)
def scope():
    register_all_modules()


def load(leaf: str) -> Config:
    return load_config(os.fspath(CONFIGS / leaf))


def without_scope(value: object) -> object:
    """A config without the `_scope_` that mmengine notes on bases of other packages."""
    if isinstance(value, dict):
        return {k: without_scope(v) for k, v in value.items() if k != '_scope_'}
    if isinstance(value, list):
        return [without_scope(item) for item in value]
    return value


def build(cfg: Config) -> nn.Module:
    cfg.model.backbone.init_cfg = None
    return MODELS.build(cfg.model)


@pytest.mark.parametrize('leaf', LEAVES)
def test_builds_and_every_norm_is_fused(leaf):
    model = build(load(leaf))
    norms = [m for m in model.modules() if isinstance(m, nn.GroupNorm)]
    assert norms
    assert {type(norm) for norm in norms} == {FusedGroupNorm}
    assert not any('BatchNorm' in type(m).__name__ for m in model.modules())


def test_r50_has_the_published_tensors():
    model = build(load(R50_2X))
    norms = [m for m in model.modules() if isinstance(m, FusedGroupNorm)]
    assert len(norms) == 69
    assert {norm.num_groups for norm in norms} == {32}
    assert {norm.eps for norm in norms} == {1e-5}
    assert len(model.state_dict()) == 223
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 3) == 45.711


def test_r50_has_the_keys_and_shapes_of_the_stock_model():
    """So a GN checkpoint of mmdet loads, and ours load there."""
    ours = build(load(R50_2X)).state_dict()
    stock = build(get_config(f'mmdet::{R50_2X}'))
    shapes = {name: tuple(value.shape) for name, value in stock.state_dict().items()}
    assert {name: tuple(value.shape) for name, value in ours.items()} == shapes


def test_r50_trains_as_upstream_does():
    """All that decides training equals mmdet's config, the norm's name apart."""
    ours = without_scope(load(R50_2X).to_dict())
    stock = get_config(f'mmdet::{R50_2X}').to_dict()
    expected = stock['model']
    for part in (
        expected['backbone'],
        expected['neck'],
        expected['roi_head']['bbox_head'],
        expected['roi_head']['mask_head'],
    ):
        assert part['norm_cfg']['type'] == 'GN'
        part['norm_cfg']['type'] = 'FusedGN'
    assert ours['model'] == expected
    for name in (
        'train_cfg',
        'val_cfg',
        'test_cfg',
        'param_scheduler',
        'optim_wrapper',
        'auto_scale_lr',
        'train_dataloader',
        'val_dataloader',
        'test_dataloader',
        'default_hooks',
        'env_cfg',
        'default_scope',
    ):
        assert ours[name] == stock[name], name
    evaluator = dict(stock['val_evaluator'], type='CocoAPMetric')
    assert ours['val_evaluator'] == ours['test_evaluator'] == evaluator

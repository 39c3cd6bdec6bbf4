"""Every config builds, has its norms where it says, and loads a stock checkpoint."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from gn_det import FusedGroupNorm
from tests.configs.zoo import LEAVES, build, built, load, shapes

R50 = 'gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py'
R101 = 'gn/mask-rcnn_r101_fpn_gn-all_2x_coco.py'
FASTER = 'scratch/faster-rcnn_r50-scratch_fpn_gn-all_6x_coco.py'
CASCADE = 'gn/cascade-mask-rcnn_r50_fpn_gn-all_2x_coco.py'
C4 = 'c4/mask-rcnn_r50-c4_gn-all_2x_coco.py'
# Group Norms by part of the model and its name in the file name.
BACKBONE_NORMS = {'r18': 20, 'r50': 53, 'r101': 104, 'x50': 53, 'x101': 104}
PARTS = {
    'gn-all': ('backbone', 'neck', 'bbox_head', 'mask_head'),
    'gn-neck-heads': ('neck', 'bbox_head', 'mask_head'),
    'gn-bbox-head': ('bbox_head',),
    'gn-backbone-bbox-head': ('backbone', 'neck', 'bbox_head'),
    'bn': (),
}


def norms(model: nn.Module) -> dict[str, FusedGroupNorm]:
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.GroupNorm)}


def part_of(name: str) -> str:
    """`backbone`, `neck`, `bbox_head`, …: roi_head's parts count as their own."""
    return name.removeprefix('roi_head.').partition('.')[0]


def expected_counts(leaf: str) -> dict[str, int]:
    """Part → number of Group Norms, as the name of the config promises."""
    name = Path(leaf).stem
    detector, backbone = name.split('_')[:2]
    placement = re.search(r'_((?:gn|ln|in)-[^_]*)_', f'{name}_')
    scheme = placement.group(1) if placement else 'bn'
    scheme = re.sub(r'^(gn-ws|gn-[gc]\d+|ln|in)-all|gn-all.*', 'gn-all', scheme)
    parts = PARTS[scheme]
    depth = BACKBONE_NORMS[backbone.split('-')[0]]
    if '-c4' in backbone:
        # The fifth stage, three blocks and a shortcut, is the heads' shared part.
        return {'backbone': depth - 10, 'shared_head': 10} if parts else {}
    counts = {'backbone': depth, 'neck': 8, 'bbox_head': 4, 'mask_head': 4}
    if detector.startswith('cascade'):
        counts |= {'bbox_head': 12, 'mask_head': 12}
    if detector.startswith('faster'):
        counts.pop('mask_head')
    return {part: count for part, count in counts.items() if part in parts}


def expected_groups(leaf: str, channels: int) -> int:
    name = Path(leaf).stem
    if found := re.search(r'_gn-g(\d+)-all_', name):
        return int(found.group(1))
    if found := re.search(r'_gn-c(\d+)-all_', name):
        return channels // int(found.group(1))
    if '_in-all_' in name:
        return channels
    if '_ln-all_' in name:
        return 1
    return 8 if 'quickstart' in leaf else 32


def stock_twin(leaf: str) -> nn.Module:
    """The same config with mmdet's detectors and torch's Group Norm."""

    def stock(value: object) -> object:
        if isinstance(value, list):
            return [stock(item) for item in value]
        if not isinstance(value, dict):
            return value
        value = {key: stock(item) for key, item in value.items()}
        if value.get('type') == 'FusedGN':
            return dict(type='GN', num_groups=1)
        kind = value.get('type')
        if isinstance(kind, str):
            value['type'] = kind.removeprefix('Fused')
        return value

    return build(Config(dict(model=stock(load(leaf).model.to_dict()))))


@pytest.mark.parametrize('leaf', LEAVES)
def test_norms_stand_where_the_name_says_and_have_its_groups(leaf):
    model = built(leaf)
    found = norms(model)
    counts: dict[str, int] = {}
    for name in found:
        counts[part_of(name)] = counts.get(part_of(name), 0) + 1
    assert counts == expected_counts(leaf)
    for name, norm in found.items():
        assert type(norm) is FusedGroupNorm, name
        assert norm.num_groups == expected_groups(leaf, norm.num_channels), name
        assert norm.eps == 1e-5, name
    others = {
        part_of(name)
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm)
    }
    assert not others & set(counts), 'Batch Norm where Group Norm belongs'
    assert others <= {'backbone', 'shared_head'}


@pytest.mark.parametrize('leaf', LEAVES)
def test_state_dict_is_the_stock_models(leaf):
    """So checkpoints of mmdet load here and ours load there."""
    assert shapes(built(leaf)) == shapes(stock_twin(leaf))


@pytest.mark.parametrize(
    ('leaf', 'keys', 'millions', 'count'),
    [
        (R50, 223, 45.711, 69),
        (R101, 376, 64.703, 120),
        (FASTER, 207, 43.067, 65),
        (CASCADE, 291, 81.265, 85),
        (C4, 173, 35.963, 53),
    ],
    ids=['r50', 'r101', 'faster', 'cascade', 'c4'],
)
def test_size(leaf, keys, millions, count):
    model = built(leaf)
    assert len(model.state_dict()) == keys
    parameters = sum(p.numel() for p in model.parameters())
    assert round(parameters / 1e6, 3) == millions
    assert len(norms(model)) == count


@pytest.mark.parametrize('leaf', [x for x in LEAVES if 'bn' in Path(x).stem])
def test_batch_norm_is_frozen(leaf):
    batch_norms = [m for m in built(leaf).modules() if isinstance(m, _BatchNorm)]
    assert batch_norms
    assert not any(p.requires_grad for m in batch_norms for p in m.parameters())
    assert load(leaf).model.backbone.norm_eval


@pytest.mark.parametrize('leaf', [x for x in LEAVES if 'scratch' in Path(x).stem])
def test_scratch_starts_from_nothing_and_freezes_nothing(leaf):
    backbone = load(leaf).model.backbone
    assert backbone.init_cfg is None
    assert backbone.zero_init_residual is False
    assert all(p.requires_grad for p in built(leaf).parameters())


@pytest.mark.parametrize('leaf', [x for x in LEAVES if x.startswith('gn+ws')])
def test_weights_are_standardised_where_a_norm_follows(leaf):
    model = built(leaf)
    kinds = {
        name: type(module).__name__
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    }
    plain = {name for name, kind in kinds.items() if kind == 'Conv2d'}
    assert all(
        name.startswith('rpn_head') or name == 'roi_head.mask_head.conv_logits'
        for name in plain
    )
    assert set(kinds.values()) == {'Conv2d', 'ConvWS2d'}
    assert len(kinds) - len(plain) == len(norms(model))


def norm_decays(leaf: str) -> set[float]:
    """Weight decay of the trained scales and shifts of Group Norms."""
    cfg = load(leaf)
    model = build(cfg)
    affine = {id(p) for norm in norms(model).values() for p in norm.parameters()}
    return {
        group['weight_decay']
        for group in build_optim_wrapper(model, cfg.optim_wrapper).param_groups
        for parameter in group['params']
        if id(parameter) in affine and parameter.requires_grad
    }


# Those whose published weights mmdetection trained with decay on γ and β.
DECAYED = tuple(
    leaf
    for leaf in LEAVES
    if leaf.startswith('gn+ws/')
    or re.fullmatch(
        r'gn/mask-rcnn_(r50|r50-contrib|r101)_fpn_gn-all_[23]x_coco.py', leaf
    )
)


def test_eighteen_configs_decay_their_norms():
    assert len(DECAYED) == 18


@pytest.mark.parametrize('leaf', [x for x in LEAVES if expected_counts(x)])
def test_scales_and_shifts_do_not_decay_unless_published_weights_need_it(leaf):
    assert norm_decays(leaf) == ({1e-4} if leaf in DECAYED else {0.0})


@pytest.mark.parametrize(
    ('leaf', 'stock'),
    [
        (C4, 'gn'),
        ('c4/mask-rcnn_r50-caffe-c4_bn_2x_coco.py', 'bn'),
    ],
)
def test_c4_starts_the_shared_stage_from_the_backbones_weights(leaf, stock, tmp_path):
    """A backbone's file holds `layer4.…`, which is what the shared head is called."""
    cfg = load(leaf).model
    norm = dict(type='GN', num_groups=32) if stock == 'gn' else dict(type='BN')
    style = cfg.backbone.style
    weights = ResNet(depth=50, norm_cfg=norm, style=style).state_dict()
    weights = {k: torch.randn_like(v.float()) for k, v in weights.items()}
    path = tmp_path / 'backbone.pth'
    torch.save(weights, path)

    shared = cfg.roi_head.shared_head
    assert shared.init_cfg.checkpoint == cfg.backbone.init_cfg.checkpoint
    assert shared.style == style
    shared.init_cfg.checkpoint = str(path)
    head = MODELS.build(shared)
    head.init_weights()
    for name, value in head.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, weights[name])


def test_keys_are_those_of_published_checkpoints():
    keys = set(built(R50).state_dict())
    assert {'backbone.gn1.weight', 'backbone.layer1.0.downsample.1.bias'} <= keys
    assert {'neck.lateral_convs.3.gn.weight', 'neck.fpn_convs.0.gn.bias'} <= keys
    assert 'roi_head.bbox_head.shared_convs.3.gn.weight' in keys
    assert 'roi_head.mask_head.convs.0.gn.weight' in keys

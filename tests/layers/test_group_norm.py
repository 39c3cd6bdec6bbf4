"""The layer against the hosts' contract: registry, names, decay, initialisers."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
from mmcv.cnn import ConvModule, build_norm_layer, is_norm
from mmengine.model import BaseModule, ConstantInit, initialize
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import MODELS
from torch import nn
from torch.nn import functional as F

from gn_det import FusedGroupNorm
from gn_det.layers import GroupNorm

NORM_CFG = dict(type='FusedGN', num_groups=4)


def random_affine(layer: nn.GroupNorm) -> None:
    """Replace 1 and 0, which would hide a channel read from the wrong place."""
    nn.init.normal_(layer.weight, mean=1.0)
    nn.init.normal_(layer.bias)


def test_registered_in_the_root_registry():
    assert MODELS.get('FusedGN') is FusedGroupNorm


def test_build_norm_layer_gives_the_name_checkpoints_have():
    name, layer = build_norm_layer(NORM_CFG, 16, postfix=1)
    assert name == 'gn1'
    assert type(layer) is FusedGroupNorm
    assert (layer.num_channels, layer.num_groups, layer.eps) == (16, 4, 1e-5)


def test_build_norm_layer_can_freeze_it():
    _, layer = build_norm_layer(dict(NORM_CFG, requires_grad=False), 16)
    assert not any(p.requires_grad for p in layer.parameters())


def test_conv_module_keeps_the_state_dict_of_a_stock_model():
    fused = ConvModule(3, 16, 3, norm_cfg=NORM_CFG)
    stock = ConvModule(3, 16, 3, norm_cfg=dict(type='GN', num_groups=4))
    assert list(fused.state_dict()) == ['conv.weight', 'gn.weight', 'gn.bias']
    random_affine(stock.gn)
    fused.load_state_dict(stock.state_dict(), strict=True)
    x = torch.randn(2, 3, 9, 7)
    torch.testing.assert_close(fused(x), stock(x))


@pytest.mark.parametrize('activation', [None, 'relu', 'silu'])
@pytest.mark.parametrize('with_residual', [False, True])
@pytest.mark.parametrize(
    'make', [lambda: FusedGroupNorm(12, 3), lambda: GroupNorm(3, 12)]
)
def test_formula_and_gradients(make, activation, with_residual):
    layer = make()
    random_affine(layer)
    x = torch.randn(2, 12, 5, 7, requires_grad=True)
    r = torch.randn(2, 12, 5, 7, requires_grad=True) if with_residual else None
    dy = torch.randn(2, 12, 5, 7)

    want = F.group_norm(x, 3, layer.weight, layer.bias)
    want = want if r is None else want + r
    want = want if activation is None else getattr(F, activation)(want)
    got = layer(x, r, activation)
    torch.testing.assert_close(got, want)

    leaves = [x, layer.weight, layer.bias, *([] if r is None else [r])]
    for one, two in zip(
        torch.autograd.grad(got, leaves, dy),
        torch.autograd.grad(want, leaves, dy),
        strict=True,
    ):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('layer', [FusedGroupNorm(8, 2), GroupNorm(2, 8)])
def test_counts_as_a_norm(layer):
    assert is_norm(layer)
    assert type(layer).__bases__ == (nn.GroupNorm,)


def test_weight_decay_rule_for_norms_applies():
    model = ConvModule(3, 16, 3, norm_cfg=NORM_CFG)
    constructor = DefaultOptimWrapperConstructor(
        optim_wrapper_cfg=dict(optimizer=dict(type='SGD', lr=0.1, weight_decay=0.01)),
        paramwise_cfg=dict(norm_decay_mult=0.0),
    )
    decay = {
        id(parameter): group['weight_decay']
        for group in constructor(model).optimizer.param_groups
        for parameter in group['params']
    }
    assert decay[id(model.conv.weight)] == 0.01
    assert decay[id(model.gn.weight)] == 0.0
    assert decay[id(model.gn.bias)] == 0.0


@pytest.mark.parametrize('name', ['GroupNorm', 'FusedGroupNorm'])
def test_initialisers_reach_it_by_either_name(name):
    class Holder(BaseModule):
        def __init__(self):
            super().__init__()
            self.norm = FusedGroupNorm(8, 2)

    model = Holder()
    initialize(model, dict(type='Constant', layer=[name], val=0.25, bias=0.5))
    assert torch.equal(model.norm.weight, torch.full((8,), 0.25))
    assert torch.equal(model.norm.bias, torch.full((8,), 0.5))
    ConstantInit(val=2.0, layer=name)(model)
    assert torch.equal(model.norm.weight, torch.full((8,), 2.0))


def test_missing_num_groups_names_the_argument():
    with pytest.raises(ValueError, match=r'FusedGN: num_groups is missing'):
        build_norm_layer(dict(type='FusedGN'), 16)


def test_indivisible_channels_names_both_numbers():
    with pytest.raises(ValueError, match=r'num_groups=32 does not divide the 48'):
        build_norm_layer(dict(type='FusedGN', num_groups=32), 48)


@pytest.mark.parametrize('num_groups', [0, -4])
def test_num_groups_must_be_positive(num_groups):
    with pytest.raises(ValueError, match='num_groups must be a positive number'):
        FusedGroupNorm(16, num_groups)


@pytest.mark.parametrize(('width', 'groups'), [(64, 8), (256, 32), (8, 1)])
def test_channels_per_group_gives_every_width_groups_of_one_size(width, groups):
    cfg = dict(type='FusedGN', num_groups=None, channels_per_group=8)
    name, layer = build_norm_layer(cfg, width, postfix=2)
    assert name == 'gn2'
    assert (layer.num_channels, layer.num_groups) == (width, groups)
    random_affine(layer)
    x = torch.randn(2, width, 3, 5)
    want = F.group_norm(x, groups, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), want)


def test_one_channel_per_group_is_instance_norm():
    x = torch.randn(2, 6, 5, 7)
    layer = FusedGroupNorm(6, channels_per_group=1)
    torch.testing.assert_close(layer(x), F.instance_norm(x))


def test_groups_and_channels_per_group_exclude_each_other():
    with pytest.raises(ValueError, match='num_groups=32 and channels_per_group=8'):
        FusedGroupNorm(64, 32, channels_per_group=8)


@pytest.mark.parametrize('size', [0, -8])
def test_channels_per_group_must_be_positive(size):
    with pytest.raises(ValueError, match='channels_per_group must be a positive'):
        FusedGroupNorm(64, channels_per_group=size)


def test_channels_per_group_must_divide():
    with pytest.raises(ValueError, match='channels_per_group=24 does not divide'):
        FusedGroupNorm(64, channels_per_group=24)


@pytest.mark.parametrize(
    ('make', 'sentence'),
    [
        (lambda: FusedGroupNorm(32, 64), r'did you mean FusedGroupNorm\(64, 32\)'),
        (lambda: GroupNorm(64, 32), r'did you mean GroupNorm\(32, 64\)'),
        (lambda: GroupNorm(0, 32), 'num_groups must be a positive number, got 0'),
        (lambda: GroupNorm(5, 32), 'num_groups=5 does not divide the 32'),
    ],
)
def test_arguments_in_the_wrong_order_are_named_in_the_right_one(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize('name', ['FusedGroupNorm', 'GroupNorm'])
@pytest.mark.parametrize('affine', [True, False])
@pytest.mark.parametrize('bias', [True, False])
def test_weight_and_bias_are_separate_choices(bias, affine, name):
    layer = {
        'FusedGroupNorm': lambda: FusedGroupNorm(8, 2, affine=affine, bias=bias),
        'GroupNorm': lambda: GroupNorm(2, 8, affine=affine, bias=bias),
    }[name]()
    assert list(layer.state_dict()) == ['weight', 'bias'][: affine * (1 + bias)]
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 8, 3)
    want = F.group_norm(x, 2, layer.weight, layer.bias)
    torch.testing.assert_close(copy.deepcopy(layer)(x), want)
    layer.reset_parameters()
    torch.testing.assert_close(layer(x), F.group_norm(x, 2))


def test_the_drop_in_has_the_signature_of_torch():
    ours, torchs = (inspect.signature(c) for c in (GroupNorm, nn.GroupNorm))
    defaults = [(p.name, p.kind, p.default) for p in ours.parameters.values()]
    expected = [(p.name, p.kind, p.default) for p in torchs.parameters.values()]
    # Before torch 2.15 nn.GroupNorm had no `bias`.
    assert defaults[: len(expected)] == expected
    assert [name for name, *_ in defaults[len(expected) :]] in ([], ['bias'])


def test_empty_batch():
    assert FusedGroupNorm(8, 2)(torch.empty(0, 8, 14, 14)).shape == (0, 8, 14, 14)


def test_fx_traces_a_model_from_another_library():
    from torchvision.models import resnet18
    from torchvision.models.feature_extraction import create_feature_extractor

    model = resnet18(norm_layer=lambda width: FusedGroupNorm(width, 32)).eval()
    features = create_feature_extractor(model, ['layer1.0.bn2', 'layer2'])
    x = torch.randn(1, 3, 32, 32)
    assert features(x)['layer1.0.bn2'].shape == (1, 64, 8, 8)
    torch.testing.assert_close(
        features(x)['layer2'], model.layer2(model.layer1(features_before(model, x)))
    )


def features_before(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return model.maxpool(model.relu(model.bn1(model.conv1(x))))


@pytest.mark.filterwarnings('ignore:.*torch.jit:DeprecationWarning')
@pytest.mark.filterwarnings('ignore:.*torch.jit:FutureWarning')
@pytest.mark.parametrize('activation', [None, 'relu', 'silu'])
def test_torch_script(activation, tmp_path):
    """A saved script needs this package no more: it is made of torch's operators."""

    layer = GroupNorm(2, 8)
    torch.jit.script(layer).save(tmp_path / 'norm.pt')
    loaded = torch.jit.load(tmp_path / 'norm.pt')
    x = torch.randn(2, 8, 3, 5)
    torch.testing.assert_close(loaded(x, x, activation), layer(x, x, activation))


def test_quantised_maps_are_refused_with_a_way_out():
    x = torch.quantize_per_tensor(torch.randn(2, 8, 3), 0.1, 0, torch.quint8)
    with pytest.raises(RuntimeError, match=r'nn\.GroupNorm has one for quantised maps'):
        FusedGroupNorm(8, 2)(x)

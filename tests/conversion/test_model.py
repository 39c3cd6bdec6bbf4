"""Group Norm for Batch Norm in built models, and what is said about it."""

from __future__ import annotations

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from gn_det import FusedGroupNorm
from gn_det.conversion import convert_norm


@pytest.fixture(scope='module', autouse=True)
def scope():
    register_all_modules()


def small_resnet() -> nn.Module:
    model = MODELS.build(
        dict(type='ResNet', depth=18, base_channels=32, stem_channels=32)
    )
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape))
    return model


def test_weights_come_from_the_batch_norm_and_the_model_works():
    model = small_resnet()
    before = copy.deepcopy(model.state_dict())
    same, _ = convert_norm(model)
    assert same is model
    after = model.state_dict()
    assert torch.equal(after['gn1.weight'], before['bn1.weight'])
    assert torch.equal(after['layer2.0.gn2.bias'], before['layer2.0.bn2.bias'])
    shortcut = 'layer2.0.downsample.1.weight'
    assert torch.equal(after[shortcut], before[shortcut])
    assert not any('running' in name for name in after)
    x = torch.randn(2, 3, 64, 64)
    sum((y * torch.randn_like(y)).sum() for y in model(x)).backward()
    assert model.layer2[0].norm1 is model.layer2[0].gn1
    assert model.layer2[0].gn1.weight.grad.abs().sum() > 0


def test_the_checkpoint_tool_gives_the_same_names():
    from gn_det.workbench.zoo.convert.norm import to_group_norm

    model = small_resnet()
    renamed, _ = to_group_norm(dict(model.state_dict()))
    convert_norm(model)
    assert list(renamed) == list(model.state_dict())
    model.load_state_dict(renamed, strict=True)


def test_a_plain_model_of_torch():
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64, eps=1e-3), nn.ReLU(), nn.LayerNorm(6)
    ).eval()
    model, report = convert_norm(model, 'GN', num_groups=16)
    assert type(model[1]) is nn.GroupNorm
    assert (model[1].num_groups, model[1].eps, model[1].training) == (16, 1e-3, False)
    assert [change.place for change in report.changed] == ['1']
    assert [(kept.place, kept.norm) for kept in report.kept] == [('3', 'LayerNorm')]
    model(torch.randn(1, 3, 8, 8))


def test_names_the_code_asks_for_stay():
    import torchvision

    model, _ = convert_norm(torchvision.models.resnet18())
    assert isinstance(model.bn1, FusedGroupNorm)
    model(torch.randn(1, 3, 64, 64))


def test_a_lone_norm_comes_back_new():
    norm, report = convert_norm(nn.BatchNorm2d(64))
    assert isinstance(norm, FusedGroupNorm)
    assert len(report.changed) == 1


def test_kinds_of_batch_norm():
    frozen = FrozenBatchNorm2d(32)
    frozen.weight.fill_(3.0)
    model = nn.ModuleList(
        [nn.SyncBatchNorm(32), frozen, nn.BatchNorm1d(32), nn.BatchNorm2d(32, affine=0)]
    )
    model, report = convert_norm(model)
    assert all(isinstance(layer, FusedGroupNorm) for layer in model)
    assert torch.equal(model[1].weight, torch.full((32,), 3.0))
    assert model[1].weight.requires_grad
    assert model[3].weight is None
    assert len(report.changed) == 4


def test_a_shared_norm_stays_shared():
    norm = nn.BatchNorm2d(32)
    model, _ = convert_norm(nn.ModuleDict(dict(a=norm, b=nn.Sequential(norm))))
    assert model['a'] is model['b'][0]


def test_a_norm_of_two_names_in_one_block_keeps_both():
    block = nn.Module()
    block.a = block.b = nn.BatchNorm2d(32)
    block, report = convert_norm(block)
    assert isinstance(block.a, FusedGroupNorm)
    assert block.b is block.a
    assert [change.place for change in report.changed] == ['a', 'b']


@pytest.mark.parametrize('norm', ['FusedGN', 'GN'])
def test_a_batch_norm_without_bias(norm):
    """As `nn.BatchNorm2d(…, bias=False)` builds it in newer torch."""
    layer = nn.BatchNorm2d(32)
    layer.weight.data.uniform_()
    layer.bias = None
    model, _ = convert_norm(nn.Sequential(nn.BatchNorm2d(32), layer), norm)
    assert isinstance(model[0], nn.GroupNorm)
    assert model[1].bias is None
    x = torch.randn(2, 32, 3, 3)
    wanted = nn.functional.group_norm(x, 16, layer.weight)
    torch.testing.assert_close(model[1](x), wanted)


def test_a_layer_that_cannot_be_replaced_leaves_the_others():
    from mmcv.cnn import ConvModule

    blocks = [ConvModule(3, 32, 3, norm_cfg=dict(type='BN')) for _ in range(2)]
    blocks[1].gn = nn.ReLU()
    with pytest.raises(ValueError, match='has a gn beside its bn'):
        convert_norm(nn.Sequential(*blocks))
    assert all(isinstance(block.bn, nn.BatchNorm2d) for block in blocks)


def test_the_short_cut_through_batch_norm_is_closed():
    from mmcv.cnn import ConvModule

    block = ConvModule(
        3, 32, 3, norm_cfg=dict(type='BN'), efficient_conv_bn_eval=True
    ).eval()
    convert_norm(block)
    block(torch.randn(1, 3, 8, 8))
    assert block.norm is block.gn


@pytest.mark.parametrize(
    ('channels', 'groups'),
    [(64, 32), (32, 16), (2048, 32), (24, 12), (432, 27), (48, 24), (37, 1), (1, 1)],
)
def test_the_groups_that_fit(channels, groups):
    norm, report = convert_norm(nn.BatchNorm2d(channels))
    assert norm.num_groups == groups
    assert report.changed[0].groups == groups


def test_groups_that_do_not_divide_change_nothing():
    model = nn.Sequential(nn.BatchNorm2d(64), nn.BatchNorm2d(48))
    with pytest.raises(ValueError, match=r'^1 has 48 channels, which 32 groups'):
        convert_norm(model, num_groups=32)
    assert all(type(layer) is nn.BatchNorm2d for layer in model)


def test_a_frozen_norm_is_trained_with_the_layers_around_it():
    def block(frozen: bool) -> nn.Module:
        norm = nn.BatchNorm2d(32).requires_grad_(False)
        conv = nn.Conv2d(3, 32, 1).requires_grad_(not frozen)
        return nn.Sequential(conv, nn.Sequential(norm))

    model, _ = convert_norm(nn.ModuleList([block(frozen=True), block(frozen=False)]))
    assert not model[0][1][0].weight.requires_grad
    assert model[1][1][0].weight.requires_grad


def test_parts_of_a_model():
    model = nn.ModuleDict(
        {name: nn.BatchNorm2d(32) for name in ('backbone', 'neck', 'rpn_head')}
    )
    model, report = convert_norm(model, parts=('neck', 'head'))
    assert isinstance(model['backbone'], nn.BatchNorm2d)
    assert isinstance(model['neck'], FusedGroupNorm)
    assert isinstance(model['rpn_head'], FusedGroupNorm)
    assert [kept.place for kept in report.kept] == ['backbone']


def test_a_part_that_is_not_there():
    with pytest.raises(ValueError, match="no part 'nek'; the parts here are neck"):
        convert_norm(nn.ModuleDict(dict(neck=nn.ReLU())), parts=('nek',))


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (dict(norm='LN'), "expected 'FusedGN' or 'GN'"),
        (dict(norm='NoSuchNorm'), "expected 'FusedGN' or 'GN'"),
        (dict(num_groups=0), 'positive'),
        (dict(num_groups='32'), "positive integer, got '32'"),
        (dict(num_groups=32.0), r'positive integer, got 32\.0'),
        (dict(num_groups=5), '^the norm has 32 channels, which 5 groups do not divide'),
    ],
)
def test_wrong_values(arguments, words):
    with pytest.raises(ValueError, match=words):
        convert_norm(nn.BatchNorm2d(32), **arguments)


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (dict(parts='neck'), r"a list of names, such as \['neck'\]"),
        (dict(model_or_cfg=None), 'None is neither a model nor a config'),
        (dict(model_or_cfg='x.py'), "'x.py' is neither a model nor a config"),
    ],
)
def test_wrong_kinds(arguments, words):
    with pytest.raises(TypeError, match=words):
        convert_norm(**{'model_or_cfg': nn.BatchNorm2d(32), **arguments})


def test_the_report_is_a_table():
    model = nn.ModuleDict(dict(neck=nn.BatchNorm2d(64), head=nn.InstanceNorm2d(8)))
    _, report = convert_norm(model)
    lines = str(report).splitlines()
    assert lines[0] == (
        '1 Batch Norms became Group Norm (1 × neck; 1 × 32 groups); '
        'kept: 1 × InstanceNorm2d (not a Batch Norm)'
    )
    assert lines[1].split(maxsplit=2) == [
        'neck', 'BatchNorm2d(64)', '→ neck: FusedGroupNorm(32 groups)',
    ]  # fmt: skip
    assert lines[2].endswith('kept: not a Batch Norm')


class NormAndReLU(nn.BatchNorm2d):
    """A Batch Norm with an activation of its own, as timm has it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).relu()


class FrozenAndReLU(FrozenBatchNorm2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).relu()


@pytest.mark.parametrize('kind', [NormAndReLU, FrozenAndReLU])
def test_a_norm_that_does_more_stays(kind):
    model, report = convert_norm(nn.Sequential(kind(32), nn.BatchNorm2d(32)))
    assert type(model[0]) is kind
    assert [change.place for change in report.changed] == ['1']
    kept = [('0', kind.__name__, 'does more than normalise')]
    assert [(k.place, k.norm, k.reason) for k in report.kept] == kept
    lone, report = convert_norm(kind(32))
    assert type(lone) is kind
    assert report.kept[0].reason == 'does more than normalise'


class SubclassOfFrozen(FrozenBatchNorm2d):
    pass


class SyncBatchNorm(nn.Module):
    """mmcv's by its name and attributes, which needs a GPU to be built."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_features = channels
        self.eps = 1e-5
        self.weight = self.bias = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize('kind', [SubclassOfFrozen, SyncBatchNorm])
def test_batch_norms_known_by_their_names(kind):
    model, report = convert_norm(nn.Sequential(kind(64)))
    assert isinstance(model[0], FusedGroupNorm)
    assert model[0].num_channels == 64
    assert len(report.changed) == 1

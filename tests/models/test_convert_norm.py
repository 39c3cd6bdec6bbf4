"""Group Norm for Batch Norm, in configs and models, and what is said about it."""

from __future__ import annotations

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.hub import get_config
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from gn_det import FusedGroupNorm
from gn_det.models.convert_norm import convert_norm


@pytest.fixture(scope='module', autouse=True)
def scope():
    register_all_modules()


def mmdet_config(name: str) -> Config:
    cfg = get_config(f'mmdet::{name}')
    cfg.model.backbone.init_cfg = None
    return cfg


def build(cfg: Config) -> nn.Module:
    with torch.device('meta'):
        return MODELS.build(cfg.model)


def batch_norms(model: nn.Module) -> list[nn.Module]:
    return [
        m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
    ]


# Explicit BN, BN by default, BN in a hand-made structure, SyncBN in neck and head.
@pytest.mark.parametrize(
    ('name', 'num_groups'),
    [
        ('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 32),
        ('yolo/yolov3_d53_8xb8-ms-416-273e_coco.py', 32),
        ('hrnet/faster-rcnn_hrnetv2p-w32-1x_coco.py', 32),
        ('regnet/mask-rcnn_regnetx-3.2GF_fpn_1x_coco.py', 8),
        ('rtmdet/rtmdet_tiny_8xb32-300e_coco.py', 4),
    ],
)
def test_model_and_config_give_the_same_names(name, num_groups):
    cfg = mmdet_config(name)
    from_cfg, cfg_report = convert_norm(cfg, num_groups=num_groups)
    model, report = convert_norm(build(cfg), num_groups=num_groups)
    built = build(from_cfg)
    assert cfg_report.changed
    assert not batch_norms(built)
    assert not batch_norms(model)
    assert list(model.state_dict()) == list(built.state_dict())
    norms = [m for m in model.modules() if isinstance(m, FusedGroupNorm)]
    assert len(report.changed) == len(norms)
    assert {norm.num_groups for norm in norms} == {num_groups}


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
    wanted = nn.functional.group_norm(x, 32, layer.weight)
    torch.testing.assert_close(model[1](x), wanted)


def test_a_layer_that_cannot_be_replaced_leaves_the_others():
    from mmcv.cnn import ConvModule

    blocks = [ConvModule(3, 32, 3, norm_cfg=dict(type='BN')) for _ in range(2)]
    blocks[1].gn = nn.ReLU()
    with pytest.raises(ValueError, match='has a gn beside its bn'):
        convert_norm(nn.Sequential(*blocks))
    assert all(isinstance(block.bn, nn.BatchNorm2d) for block in blocks)


@pytest.mark.parametrize(
    'kind', [nn.BatchNorm2d, nn.SyncBatchNorm, 'mmdet.BN', 'mmengine.BN', 'BN1d']
)
def test_batch_norm_by_any_name_in_a_config(kind):
    cfg = dict(type='ResNet', depth=18, norm_cfg=dict(type=kind, eps=1e-3))
    new, report = convert_norm(cfg)
    assert new['norm_cfg'] == dict(type='FusedGN', num_groups=32, eps=1e-3)
    assert '<class' not in str(report)
    cfg['norm_cfg']['type'] = nn.InstanceNorm2d
    assert convert_norm(cfg)[1].kept[0].norm == 'InstanceNorm2d'


def test_imports_of_a_config_may_be_one_name():
    cfg = Config(dict(custom_imports=dict(imports='mine'), model=dict(type='ResNet')))
    new, _ = convert_norm(cfg)
    assert new.custom_imports.imports == ['mine', 'gn_det']


def test_frozen_parameters_stay_frozen_and_are_mentioned():
    model = nn.Sequential(nn.BatchNorm2d(32).requires_grad_(False), nn.BatchNorm2d(32))
    model, report = convert_norm(model)
    assert not model[0].weight.requires_grad
    assert model[1].weight.requires_grad
    assert any('frozen' in note for note in report.notes)


def test_the_short_cut_through_batch_norm_is_closed():
    from mmcv.cnn import ConvModule

    block = ConvModule(
        3, 32, 3, norm_cfg=dict(type='BN'), efficient_conv_bn_eval=True
    ).eval()
    convert_norm(block)
    block(torch.randn(1, 3, 8, 8))
    assert block.norm is block.gn


def test_parts_of_a_model():
    model = nn.ModuleDict(
        {name: nn.BatchNorm2d(32) for name in ('backbone', 'neck', 'rpn_head')}
    )
    model, report = convert_norm(model, parts=('neck', 'head'))
    assert isinstance(model['backbone'], nn.BatchNorm2d)
    assert isinstance(model['neck'], FusedGroupNorm)
    assert isinstance(model['rpn_head'], FusedGroupNorm)
    assert [kept.place for kept in report.kept] == ['backbone']


def test_parts_of_a_config():
    cfg = mmdet_config('yolo/yolov3_d53_8xb8-ms-416-273e_coco.py')
    new, report = convert_norm(cfg, parts=('neck', 'head'))
    assert new.model.neck.norm_cfg.type == 'FusedGN'
    assert new.model.bbox_head.norm_cfg.type == 'FusedGN'
    assert 'norm_cfg' not in new.model.backbone
    assert ('backbone.norm_cfg', 'of a part not chosen') in {
        (kept.place, kept.reason) for kept in report.kept
    }


@pytest.mark.parametrize('target', [nn.ModuleDict(dict(neck=nn.ReLU())), dict(neck={})])
def test_a_part_that_is_not_there(target):
    with pytest.raises(ValueError, match="no part 'nek'; the parts here are neck"):
        convert_norm(target, parts=('nek',))


def test_a_config_is_not_changed_but_copied():
    cfg = mmdet_config('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
    before = copy.deepcopy(cfg.to_dict())
    new, report = convert_norm(cfg)
    assert cfg.to_dict() == before
    assert new.model.backbone.norm_cfg == dict(
        type='FusedGN', num_groups=32, requires_grad=True
    )
    assert 'gn_det' in new.custom_imports['imports']
    assert len(report.changed) == 1
    model_only, _ = convert_norm(cfg.model)
    assert model_only.backbone.norm_cfg.type == 'FusedGN'


def test_pretrained_weights_are_mentioned():
    cfg = get_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
    _, report = convert_norm(cfg)
    assert any('torchvision://resnet50' in note for note in report.notes)
    lone = dict(type='ResNet', init_cfg=dict(type='Pretrained', checkpoint='a.pth'))
    _, report = convert_norm(lone)
    assert report.notes[0].startswith('init_cfg loads a.pth')


def test_frozen_stages_are_mentioned_and_stay():
    cfg = mmdet_config('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
    new, report = convert_norm(cfg)
    assert new.model.backbone.frozen_stages == 1
    assert any('backbone.frozen_stages=1 freezes' in note for note in report.notes)
    cfg.model.backbone.frozen_stages = -1
    assert not any('frozen_stages' in note for note in convert_norm(cfg)[1].notes)


def test_groups_that_do_not_divide_change_nothing():
    model = nn.Sequential(nn.BatchNorm2d(64), nn.BatchNorm2d(48))
    with pytest.raises(ValueError, match=r'^1 has 48 channels.* for 24 there$'):
        convert_norm(model)
    assert all(type(layer) is nn.BatchNorm2d for layer in model)
    convert_norm(model, indivisible='nearest')
    assert [layer.num_groups for layer in model] == [32, 24]


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (dict(norm='LN'), "expected 'FusedGN' or 'GN'"),
        (dict(norm='NoSuchNorm'), "expected 'FusedGN' or 'GN'"),
        (dict(num_groups=0), 'positive'),
        (dict(num_groups='32'), "positive integer, got '32'"),
        (dict(num_groups=32.0), r'positive integer, got 32\.0'),
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
    model = nn.Sequential(nn.BatchNorm2d(64), nn.InstanceNorm2d(8))
    _, report = convert_norm(model)
    lines = str(report).splitlines()
    assert lines[0] == '1 changed, 1 kept'
    assert lines[1].split() == [
        '0',
        'BatchNorm2d(64)',
        '→',
        '0:',
        'FusedGroupNorm(32',
        'groups)',
    ]
    assert 'kept: not a Batch Norm' in lines[2]


class TakesNorm(nn.Module):
    def __init__(self, channels: int = 32, norm_cfg: dict = dict(type='BN')) -> None:  # noqa: B006
        super().__init__()


class PassesOn(TakesNorm):
    def __init__(self, depth: int = 1, **kwargs) -> None:
        super().__init__(**kwargs)


class KeepsToItself(TakesNorm):
    def __init__(self, depth: int = 1) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ('kind', 'reached'), [(TakesNorm, 1), (PassesOn, 1), (KeepsToItself, 0)]
)
def test_a_default_is_replaced_where_it_can_be_set(kind, reached):
    cfg, report = convert_norm(dict(backbone=dict(type=kind)))
    assert len(report.changed) == reached
    assert not report.kept
    assert ('norm_cfg' in cfg['backbone']) == bool(reached)
    kind(**{k: v for k, v in cfg['backbone'].items() if k != 'type'})


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
    cfg, report = convert_norm(dict(type='ResNet', norm_cfg=dict(type=kind)))
    assert cfg['norm_cfg']['type'] is kind
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


@pytest.mark.parametrize(
    ('cfg', 'words'),
    [
        (dict(model=None), 'model: expected the config of a model, got None'),
        (dict(model=[]), r'model: expected the config of a model, got \[\]'),
        (dict(custom_imports=['mine']), r"custom_imports: .*got \['mine'\]"),
        (dict(custom_imports=dict(imports=5)), 'custom_imports: .*got 5'),
        (dict(custom_imports=dict(imports=[5])), r'custom_imports: .*got \[5\]'),
    ],
)
def test_configs_that_cannot_be(cfg, words):
    with pytest.raises(TypeError, match=words):
        convert_norm({'model': dict(type='ResNet'), **cfg})


def test_a_config_without_a_model():
    with pytest.raises(ValueError, match='the config has no model'):
        convert_norm(Config(dict(type='ResNet', norm_cfg=dict(type='BN'))))


def test_keys_that_are_no_names():
    given = {key: dict(type='ResNet', norm_cfg=dict(type='BN')) for key in (1, 2)}
    cfg, report = convert_norm({'a': {1: given[1]}, 2: given[2]})
    assert cfg['a'][1]['norm_cfg']['type'] == 'FusedGN'
    assert [change.place for change in report.changed] == ['a.1.norm_cfg', '2.norm_cfg']
    with pytest.raises(ValueError, match='the parts here are a, 2'):
        convert_norm({'a': {}, 2: {}}, parts=['neck'])


@pytest.mark.parametrize('value', ['BN', [dict(type='BN')], nn.BatchNorm2d])
def test_a_norm_cfg_that_is_no_dict_is_mentioned(value):
    cfg, report = convert_norm(dict(type='ResNet', norm_cfg=value))
    assert cfg['norm_cfg'] == value
    assert [(k.place, k.reason) for k in report.kept] == [('norm_cfg', 'not a dict')]


def test_no_norm_is_nothing_to_mention():
    assert not convert_norm(dict(type='ResNet', norm_cfg=None))[1].kept


def test_pretrained_weights_in_a_list_are_mentioned():
    heads = [
        dict(norm_cfg=dict(type='BN'), init_cfg=dict(type='Pretrained', checkpoint='a'))
    ]
    _, report = convert_norm(dict(heads=heads))
    assert report.notes[0].startswith('heads.0.init_cfg loads a')

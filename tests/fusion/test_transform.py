"""`fuse` and `unfuse`: what they recognise, what they say, what they leave alone."""

from __future__ import annotations

import copy
import io
import os
import pickle
import sys

import pytest
import torch
import torch.distributed
from mmcv.cnn import ConvModule
from mmdet.models.backbones import Res2Net, ResNet, ResNetV1d, ResNeXt
from mmdet.registry import MODELS
from mmengine.hub import get_config
from mmengine.model import ExponentialMovingAverage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import gn_det
from gn_det import FusedGroupNorm
from gn_det.fusion import FusedModule
from tests.fusion.detectors import R18, R50, R101, fused, model_config, randomise, stock
from tests.running import assert_success, run

GN = dict(type='GN', num_groups=4)
# Blocks of four stages, small enough to build by the dozen.
SMALL = dict(norm_cfg=GN, base_channels=16, stem_channels=16)
CONTEXT = dict(type='ContextBlock', ratio=1 / 4)


def plugin(position: str) -> dict:
    return dict(cfg=CONTEXT, stages=(False, True, True, False), position=position)


BACKBONES = {
    'r18': lambda: ResNet(18, **SMALL),
    'r50': lambda: ResNet(50, **SMALL),
    'r50-caffe': lambda: ResNet(50, style='caffe', **SMALL),
    'r50-with_cp': lambda: ResNet(50, with_cp=True, **SMALL),
    'r18-with_cp': lambda: ResNet(18, with_cp=True, **SMALL),
    'r50-frozen': lambda: ResNet(50, frozen_stages=2, **SMALL),
    'r50-zero_init': lambda: ResNet(50, zero_init_residual=True, **SMALL),
    'r50-plugin1': lambda: ResNet(50, plugins=[plugin('after_conv1')], **SMALL),
    'r50-plugin2': lambda: ResNet(50, plugins=[plugin('after_conv2')], **SMALL),
    'r50-plugin3': lambda: ResNet(50, plugins=[plugin('after_conv3')], **SMALL),
    'r50-deep-avg': lambda: ResNet(50, deep_stem=True, avg_down=True, **SMALL),
    'r50-v1d': lambda: ResNetV1d(depth=50, **SMALL),
    'x50': lambda: ResNeXt(depth=50, groups=4, base_width=4, **SMALL),
    'res2net': lambda: Res2Net(depth=50, scales=4, base_width=32, **SMALL),
}


def image(size: int = 33) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn((2, 3, size, size), generator=generator).requires_grad_()


def results(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Outputs, and the gradients of the image and of every parameter that has one."""
    model.zero_grad()
    x.grad = None
    outs = model(x)
    outs = [outs] if isinstance(outs, Tensor) else list(outs)
    generator = torch.Generator().manual_seed(2)
    upstream = [torch.randn(out.shape, generator=generator) for out in outs]
    torch.autograd.backward(outs, upstream)
    found = {str(i): out.detach() for i, out in enumerate(outs)}
    for name, parameter in [('image', x), *model.named_parameters()]:
        if parameter.grad is not None:
            found[name] = parameter.grad.clone()
    return found


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Within what reordered float32 sums differ by, relative to the whole tensor."""
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        reach = 1e-5 * value.norm() + 1e-12
        assert (ours[name] - value).norm() <= reach, name


def random_pair(build) -> tuple[nn.Module, nn.Module, gn_det.fusion.FusionReport]:
    model = build()
    model.init_weights() if hasattr(model, 'init_weights') else None
    randomise(model)
    ours = copy.deepcopy(model)
    return model, ours, gn_det.fuse(ours)


@pytest.mark.parametrize('name', BACKBONES)
def test_backbones(name):
    model, ours, report = random_pair(BACKBONES[name])
    for mode in (True, False):
        model.train(mode)
        ours.train(mode)
        assert_same(results(ours, image()), results(model, image()))
    assert not report.untouched
    blocks = sum(len(getattr(ours, stage)) for stage in ours.res_layers)
    if name == 'r50-plugin3':
        # Four blocks of the second and six of the third stage end in the plugin; in
        # the first of each the norm of the shortcut takes the sum in.
        assert len(report.add_relu) == blocks - 10 + 2
        assert 'a plugin follows it' in report.plain.values()
    else:
        assert len(report.add_relu) == blocks
    # Nothing but the downsample branches stays without a ReLU.
    assert all('downsample' in n or 'norm3' in n or 'gn3' in n for n in report.plain)


def test_norm_eval_and_frozen_stages_hold_in_training():
    model = ResNet(50, frozen_stages=1, norm_eval=True, **SMALL)
    ours = copy.deepcopy(model)
    gn_det.fuse(ours)
    for either in (model, ours):
        either.train()
    assert [m.training for m in ours.modules()] == [m.training for m in model.modules()]
    frozen = {n for n, p in ours.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, p in model.named_parameters() if not p.requires_grad}
    assert {'conv1.weight', 'layer1.0.gn3.weight'} < frozen
    assert not ours.layer1.training
    assert ours.layer2.training


def test_zero_init_residual_reaches_fused_norms():
    model = ResNet(50, zero_init_residual=True, **SMALL)
    gn_det.fuse(model)
    model.init_weights()
    assert all((block.norm3.weight == 0).all() for block in model.layer2)
    assert all((block.norm2.weight == 1).all() for block in model.layer2)


CONV_MODULES = {
    'relu': ({}, 'relu'),
    'plain': (dict(act_cfg=None), 'plain'),
    'leaky': (dict(act_cfg=dict(type='LeakyReLU')), 'plain'),
    'relu6': (dict(act_cfg=dict(type='ReLU6')), 'plain'),
    'norm-conv-act': (dict(order=('norm', 'conv', 'act')), 'plain'),
    'conv-act-norm': (dict(order=('conv', 'act', 'norm')), 'plain'),
    'reflect': (dict(padding_mode='reflect', padding=1), 'relu'),
    'zeros': (dict(padding_mode='zeros', padding=1), 'relu'),
    'spectral': (dict(with_spectral_norm=True), 'relu'),
    'not-inplace': (dict(inplace=False), 'relu'),
}


@pytest.mark.parametrize('name', CONV_MODULES)
def test_conv_modules(name):
    settings, kind = CONV_MODULES[name]
    channels = 4 if name == 'norm-conv-act' else 8

    def build():
        torch.manual_seed(0)
        head = nn.Conv2d(3, channels, 1)
        conv = ConvModule(channels, channels, 3, norm_cfg=GN, **settings)
        return nn.Sequential(head, conv)

    model = build()
    ours = build()
    report = gn_det.fuse(ours)
    assert len(getattr(report, kind)) == len(report) == 1
    randomise_norms(model, ours)
    assert_same(results(ours, image(9)), results(model, image(9)))


def randomise_norms(model: nn.Module, ours: nn.Module) -> None:
    for norm in model.modules():
        if isinstance(norm, nn.GroupNorm):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    ours.load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    'call',
    [
        dict(activate=False),
        dict(norm=False),
        dict(activate=False, norm=False),
    ],
    ids=['no-act', 'no-norm', 'conv'],
)
def test_calls_of_a_conv_module_that_leave_something_out(call):
    model, ours = ConvModule(3, 8, 3, norm_cfg=GN), ConvModule(3, 8, 3, norm_cfg=GN)
    gn_det.fuse(ours)
    randomise_norms(model, ours)
    x = image(9)
    torch.testing.assert_close(ours(x, **call), model(x, **call))


def test_a_sequential_of_norm_and_relu():
    def build():
        return nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.GroupNorm(2, 8),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 8, 3),
            nn.GroupNorm(2, 8),
            nn.GroupNorm(4, 8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 1),
            nn.GroupNorm(2, 8),
        )

    model, ours = build(), build()
    randomise_norms(model, ours)
    report = gn_det.fuse(ours)
    assert report.relu == ['1', '5']
    assert list(report.plain) == ['4', '8']
    assert_same(results(ours, image(9)), results(model, image(9)))


class Unknown(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.GroupNorm(2, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).sigmoid()


class CustomNorm(nn.GroupNorm):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class OwnConvModule(ConvModule):
    """Of another forward: what `fuse` knows of ConvModule does not hold here."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).tanh()


def test_unknown_blocks_are_left_alone_and_named():
    model = nn.Sequential(
        Unknown(),
        nn.Sequential(nn.Conv2d(8, 8, 1), CustomNorm(2, 8), nn.ReLU()),
        OwnConvModule(8, 8, 1, norm_cfg=GN),
    )
    ours = copy.deepcopy(model)
    report = gn_det.fuse(ours)
    assert 'Unknown' in report.plain['0.norm']
    assert 'CustomNorm' in report.untouched['1.1']
    assert 'OwnConvModule' in report.plain['2.gn']
    assert len(report) == 3
    for reason in (*report.plain.values(), *report.untouched.values()):
        assert reason in str(report)
    assert_same(results(ours, image(9)), results(model, image(9)))


@pytest.mark.parametrize(
    ('leaf', 'relu', 'blocks'), [(R50, 41, 16), (R101, 75, 33)], ids=['r50', 'r101']
)
def test_report_of_the_published_models(leaf, relu, blocks):
    model = stock(model_config(leaf))
    report = gn_det.fuse(model)
    assert len(report.relu) == relu
    assert len(report.add_relu) == blocks
    # Four downsample branches and the eight norms of the FPN.
    assert len(report) - relu - blocks == 12
    assert not report.untouched
    again = gn_det.fuse(model)
    assert again == report


def test_a_model_without_group_norm_stays():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    report = gn_det.fuse(model)
    assert len(report) == 0
    assert type(model) is nn.Sequential


def test_a_head_of_mmdet():
    """FCOS has GN in its towers, each shared by five levels."""
    config = get_config('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py').model
    head = MODELS.build(
        {**config.bbox_head, 'in_channels': 32, 'feat_channels': 32, 'train_cfg': None}
    )
    randomise(head)
    ours = copy.deepcopy(head)
    report = gn_det.fuse(ours)
    assert len(report.relu) == len(report) == 8
    maps = [torch.randn(1, 32, size, size) for size in (8, 4, 3, 2, 2)]
    for found, expected in zip(ours(maps), head(maps), strict=True):
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)


def test_state_dicts_are_the_stock_ones_in_both_directions():
    config = model_config(R18)
    theirs, ours = stock(config), fused(config)
    shapes = {k: (v.shape, v.dtype) for k, v in theirs.state_dict().items()}
    assert {k: (v.shape, v.dtype) for k, v in ours.state_dict().items()} == shapes
    assert list(ours.state_dict()) == list(theirs.state_dict())
    randomise(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    randomise(ours, seed=5)
    theirs.load_state_dict(ours.state_dict(), strict=True)


def test_unfuse_gives_the_stock_modules_back():
    model = ResNet(50, **SMALL)
    randomise(model)
    classes = [type(module) for module in model.modules()]
    settings = [set(module.__dict__) for module in model.modules()]
    expected = results(model, image())
    gn_det.fuse(model, recompute=True)
    assert [type(module) for module in model.modules()] != classes
    gn_det.unfuse(model)
    assert [type(module) for module in model.modules()] == classes
    assert [set(module.__dict__) for module in model.modules()] == settings
    for name, value in results(model, image()).items():
        assert torch.equal(value, expected[name])
    gn_det.unfuse(model)
    assert [type(module) for module in model.modules()] == classes


def test_norms_built_as_ours_stay_ours():
    model = ConvModule(3, 8, 3, norm_cfg=dict(type='FusedGN', num_groups=2))
    gn_det.fuse(model)
    gn_det.unfuse(model)
    assert type(model) is ConvModule
    assert type(model.norm) is FusedGroupNorm


def copied(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model)


def pickled(model: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(model))


def saved(model: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize('through', [copied, pickled, saved])
@pytest.mark.parametrize('recompute', [False, True])
def test_copies_are_fused_and_independent(through, recompute):
    model = ResNet(18, **SMALL)
    randomise(model)
    gn_det.fuse(model, recompute=recompute)
    other = through(model)
    assert [type(m) for m in other.modules()] == [type(m) for m in model.modules()]
    expected = results(model, image())
    assert_same(results(other, image()), expected)
    with torch.no_grad():
        other.gn1.weight.mul_(2)
    assert not torch.equal(other.gn1.weight, model.gn1.weight)
    gn_det.unfuse(other)
    assert type(other) is ResNet


def test_ema_follows_a_fused_model():
    model = ResNet(18, **SMALL)
    randomise(model)
    gn_det.fuse(model)
    average = ExponentialMovingAverage(model, momentum=0.5)
    old = model.gn1.weight.detach().clone()
    average.update_parameters(model)
    with torch.no_grad():
        model.gn1.weight.add_(1)
    average.update_parameters(model)
    torch.testing.assert_close(average.module.gn1.weight, old + 0.5)
    assert isinstance(average.module.layer1[0], FusedModule)
    outs = average(image())
    assert outs[-1].isfinite().all()


@pytest.fixture
def process_group(tmp_path):
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/rendezvous', rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize('recompute', [False, True])
def test_ddp_finds_every_parameter(process_group, recompute):
    model = ResNet(18, **SMALL)
    randomise(model)
    expected = results(model, image())
    gn_det.fuse(model, recompute=recompute)
    parallel = DistributedDataParallel(model, find_unused_parameters=False)
    for _ in range(2):
        found = results(parallel, image())
    found = {name.removeprefix('module.'): value for name, value in found.items()}
    assert_same(found, expected)


def test_hooks_stay():
    model = ResNet(18, **SMALL)
    seen = []
    model.layer1[0].register_forward_hook(lambda *_: seen.append('block'))
    model.layer1[0].gn1.register_forward_hook(lambda *_: seen.append('norm'))
    gn_det.fuse(model)
    model(image())
    assert seen == ['norm', 'block']


def test_isinstance_and_names_stay():
    model = ResNet(18, **SMALL)
    names = [name for name, _ in model.named_modules()]
    block = type(model.layer1[0])
    gn_det.fuse(model)
    assert isinstance(model, ResNet)
    assert isinstance(model.layer1[0], block)
    assert isinstance(model.gn1, nn.GroupNorm)
    assert [name for name, _ in model.named_modules()] == names


def test_pickles_need_no_run_of_fuse(tmp_path):
    """A process that only imports gn_det reads a whole model back."""
    model = nn.Sequential(ConvModule(3, 8, 3, norm_cfg=GN))
    gn_det.fuse(model)
    path = os.fspath(tmp_path / 'model.pth')
    torch.save(model, path)
    code = (
        'import sys, torch, gn_det\n'
        'model = torch.load(sys.argv[1], weights_only=False)\n'
        'assert type(model[0]).__name__ == "FusedConvModule", type(model[0])\n'
        'model(torch.randn(1, 3, 9, 9))\n'
    )
    assert_success(run(sys.executable, '-c', code, path))

"""Blocks are known by the code that was read; users teach fusion their own."""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import pickle
from pathlib import Path

import pytest
import torch
from mmcv.cnn import ConvModule, get_model_complexity_info
from mmdet.models.backbones import ResNet
from mmdet.models.backbones.resnet import Bottleneck
from mmengine import analysis
from torch import Tensor, nn

import gn_det
from gn_det.fusion import FusedModule, core, kind_of, norm_add_relu, norm_relu
from gn_det.fusion.hosts import timm, torchvision  # noqa: F401  (registers)
from tests.fusion.detectors import randomise
from tests.fusion.hosts import need

GN = dict(type='GN', num_groups=4)


def small_resnet() -> ResNet:
    model = ResNet(50, base_channels=8, stem_channels=8, norm_cfg=GN)
    randomise(model)
    return model


def image() -> Tensor:
    return torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('host', core.HOSTS)
def test_the_installed_releases_are_those_that_were_read(host):
    """One digest is one of all Pythons and of the OneDL and the OpenMMLab releases."""
    need(host)
    importlib.import_module(f'gn_det.fusion.hosts.{host}')
    known = {n: e for n, e in core.registered().items() if n.split('.')[0] == host}
    assert known
    for name, (code, methods) in known.items():
        module, _, kind = name.rpartition('.')
        cls = getattr(importlib.import_module(module), kind)
        assert code == {core.digest(cls, methods)}, name


def patched(self, x: Tensor) -> Tensor:
    return Bottleneck.stock_forward(self, x) + 1


def wrapped(stock):
    @functools.wraps(stock)
    def forward(self, x):
        return stock(self, x) + 1

    return forward


@pytest.mark.parametrize('wrap', [False, True])
def test_a_patched_block_stays_stock_and_is_named(monkeypatch, wrap):
    stock = Bottleneck.forward
    new = wrapped(stock) if wrap else patched
    monkeypatch.setattr(Bottleneck, 'stock_forward', stock, raising=False)
    monkeypatch.setattr(Bottleneck, 'forward', new)
    model = small_resnet()
    ours = copy.deepcopy(model)
    report = gn_det.fuse(ours)
    assert type(ours.layer1[0]) is Bottleneck
    assert not report.add_relu
    assert 'forward of Bottleneck was changed' in report.plain['layer1.0.gn3']
    for a, b in zip(ours(image()), model(image()), strict=True):
        assert torch.equal(a, b)


def test_a_patched_norm_is_not_taken_over(monkeypatch):
    stock = nn.GroupNorm.forward
    monkeypatch.setattr(nn.GroupNorm, 'forward', wrapped(stock))
    nn.GroupNorm.forward.__module__ = 'somebody'
    model = small_resnet()
    ours = copy.deepcopy(model)
    report = gn_det.fuse(ours)
    assert len(report.untouched) == len(report)
    assert torch.equal(ours(image())[-1], model(image())[-1])


def test_a_digest_is_of_what_the_code_does():
    class Block(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            """Twice."""
            return x + x  # a comment

    class Same(nn.Module):
        def forward(self, x):
            return (x
                    + x)  # fmt: skip

    class Other(nn.Module):
        def forward(self, x):
            return x - x

    assert core.digest(Block) == core.digest(Same) != core.digest(Other)
    # One that came from no file.
    scope = {'nn': nn}
    exec('class Block(nn.Module):\n  def forward(self, x): return x + x', scope)
    assert core.digest(scope['Block']) is None


def test_a_name_needs_a_digest():
    with pytest.raises(ValueError, match='digest'):
        gn_det.fusion.register('some.Block')


class Block(nn.Module):
    def __init__(self, act: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.norm1, self.norm2 = nn.GroupNorm(2, 8), nn.GroupNorm(2, 8)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.norm1(self.conv1(x)))
        return self.act(x + self.norm2(self.conv2(out)))


@gn_det.fusion.register(Block)
class FusedBlock(FusedModule):
    @staticmethod
    def fused_norms(block):
        yield block.norm1, kind_of(block.act)
        yield block.norm2, kind_of(block.act, add=True)

    def forward(self, x):
        out = norm_relu(self.norm1, self.act, self.conv1(x))
        return norm_add_relu(self.norm2, self.act, self.conv2(out), x)


def test_the_users_guide_has_this_block():
    page = Path(gn_det.__file__).parents[1] / 'docs' / 'fusion.md'
    assert inspect.getsource(FusedBlock) in page.read_text(encoding='utf-8')


def copied(model: nn.Module, x: Tensor) -> nn.Module:
    return copy.deepcopy(model)


def pickled(model: nn.Module, x: Tensor) -> nn.Module:
    return pickle.loads(pickle.dumps(model))


def compiled(model: nn.Module, x: Tensor) -> nn.Module:
    torch.compiler.reset()
    return torch.compile(model, backend='aot_eager', fullgraph=True)


def exported(model: nn.Module, x: Tensor) -> nn.Module:
    return torch.export.export(model, (x,)).module()


@pytest.mark.parametrize('through', [None, copied, pickled, compiled, exported])
def test_a_users_own_block(through):
    model = nn.Sequential(Block(), Block())
    randomise(model)
    ours = copy.deepcopy(model)
    report = gn_det.fuse(ours)
    assert (len(report.relu), len(report.add_relu)) == (2, 2)
    x = torch.randn(2, 8, 9, 9)
    if through is not None:
        ours = through(ours, x)
    torch.testing.assert_close(ours(x), model(x))
    if through is None:
        assert torch.equal(ours(x), model(x))
        gn_det.unfuse(ours)
        assert type(ours[0]) is Block


@pytest.mark.parametrize(
    ('act', 'kinds'),
    [(nn.SiLU, ('silu', 'add_silu')), (nn.GELU, ('plain', 'add'))],
)
def test_a_users_block_with_another_activation(act, kinds):
    model = Block(act)
    randomise(model)
    ours = copy.deepcopy(model)
    report = gn_det.fuse(ours)
    assert all(len(getattr(report, kind)) == 1 for kind in kinds)
    x = torch.randn(2, 8, 9, 9)
    assert torch.equal(ours(x), model(x))
    if act is nn.GELU:
        assert 'GELU follows it' in str(report)


class Student(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = ConvModule(3, 8, 1, norm_cfg=GN)
        # As mmdet's distillation does, so that it is in no state dict.
        object.__setattr__(self, 'teacher', ConvModule(3, 8, 1, norm_cfg=GN))


def test_a_teacher_outside_the_tree_is_named():
    model = Student()
    report = gn_det.fuse(model)
    assert report.outside == {'teacher': 1}
    assert len(report) == 1
    assert 'gn_det.fuse(model.teacher)' in str(report)
    gn_det.fuse(model.teacher)
    assert gn_det.fuse(model).outside == {}


@pytest.mark.parametrize('norm', ['GN', 'FusedGN'])
def test_flops_are_those_of_the_stock_model(norm):
    def build(norm: str) -> ResNet:
        norm_cfg = dict(type=norm, num_groups=4)
        return ResNet(18, base_channels=8, stem_channels=8, norm_cfg=norm_cfg)

    counts = []
    for model in (build('GN'), build(norm)):
        if counts:
            gn_det.fuse(model)
        by_hooks, _ = get_model_complexity_info(
            model, (3, 64, 64), as_strings=False, print_per_layer_stat=False
        )
        by_trace = analysis.get_model_complexity_info(model, (3, 64, 64))
        counts.append((by_hooks, by_trace['flops']))
    assert counts[0] == counts[1]

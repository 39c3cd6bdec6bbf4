"""Forwards that are made from the stock ones do what these do, in every form."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gn_det
from gn_det.fusion import Rewritten
from tests.fusion.detectors import randomise
from tests.fusion.hosts import need, tv_efficientnet
from tests.fusion.pairs import pairs, taken_in


class Forms(nn.Module):
    """Norms that wait across conditions, loops, other names and other functions."""

    def __init__(self, skip: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)
        self.bns = nn.ModuleList(nn.GroupNorm(2, 8) for _ in range(7))
        self.down = nn.Sequential(nn.Conv2d(8, 8, 1), nn.GroupNorm(2, 8))
        self.drop = nn.Dropout(0.5)
        self.act = nn.ReLU(inplace=True)
        self.skip = skip

    def forward(self, x: Tensor, more: Tensor | None = None) -> Tensor:
        """More than one path."""
        total = 0
        for bn in self.bns[:2]:
            total += bn(self.conv(x))
        x = F.relu(total, inplace=True)
        out = self.bns[2](self.conv(x))
        if self.skip:
            out = self.drop(out)
            out += x
        out = self.act(out)
        kept = y = self.bns[3](out)
        same = y
        y = self.act(self.bns[4](out)) + same.sum() + kept.mean()
        shape = y.shape
        z = self.down(x) if self.skip else self.bns[5](y)
        z *= 2
        waits = self.bns[6](z)
        z = waits + F.interpolate(y, size=waits.shape[2:], mode='nearest')
        halves = [half + 1 for half in z.chunk(2, dim=1)]
        return torch.cat(halves, 1).view(shape), z


class FusedForms(Rewritten):
    """Registered below."""


gn_det.fusion.register(Forms)(FusedForms)


def fused(skip: bool) -> tuple[nn.Module, nn.Module]:
    model = Forms(skip)
    randomise(model)
    ours = copy.deepcopy(model)
    gn_det.fuse(ours)
    return model, ours


@pytest.mark.parametrize('skip', [False, True])
@pytest.mark.parametrize('training', [False, True])
def test_equal(skip, training):
    model, ours = fused(skip)
    x = torch.randn(2, 8, 5, 5)
    found = []
    for each in (model, ours, pickle.loads(pickle.dumps(ours))):
        each.train(training)
        leaf = x.clone().requires_grad_()
        torch.manual_seed(0)
        outs = each(leaf)
        torch.autograd.backward(outs, [torch.ones_like(out) for out in outs])
        found.append([*outs, leaf.grad, *(p.grad for p in each.parameters())])
    for tensors in zip(*found, strict=True):
        for tensor in tensors[1:]:
            assert tensor is tensors[0] is None or torch.equal(tensor, tensors[0])
    if not training:
        # Dropout is nothing then, and does not keep the sum from the norm.
        run = [lambda each=each: each(x) for each in (model, ours)]
        assert taken_in(run[1]) == pairs(run[0])


def test_no_norm_is_computed_twice():
    _, ours = fused(True)
    calls = []
    for module in ours.modules():
        if isinstance(module, nn.GroupNorm):
            module.register_forward_hook(lambda *_: calls.append(1))
    ours.eval()(torch.randn(1, 8, 4, 4))
    assert len(calls) == 7


def test_one_graph():
    model, ours = fused(True)
    x = torch.randn(2, 8, 5, 5)
    torch.compiler.reset()
    compiled = torch.compile(ours.eval(), backend='aot_eager', fullgraph=True)
    for found, expected in zip(compiled(x), model.eval()(x), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_traceback_names_the_stock_line():
    _, ours = fused(True)
    with pytest.raises(TypeError) as raised:
        ours(None)
    frame = next(f for f in raised.traceback if f.name == 'forward')
    assert str(frame.path) == __file__
    assert 'bn(self.conv(x))' in str(frame.statement)


def test_stochastic_depth_takes_nothing_from_evaluation():
    need('torchvision')
    model, x = tv_efficientnet(stochastic_depth_prob=0.3)
    randomise(model)
    ours = copy.deepcopy(model).train()
    assert 'StochasticDepth follows it' in str(gn_det.fuse(ours))
    model.eval()
    ours.eval()
    assert torch.equal(ours(x), model(x))
    assert taken_in(lambda: ours(x)) == pairs(lambda: model(x))

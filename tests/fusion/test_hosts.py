"""Blocks of every host: fused, they are equal bit by bit, and nothing is left out."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import gn_det
from gn_det.fusion import core
from tests.fusion.detectors import randomise
from tests.fusion.hosts import MODELS, need
from tests.fusion.pairs import norms_of, pairs, taken_in

OUR_HOSTS = ('torch', 'torchvision', 'timm', 'mmcv', 'mmdet', 'mmpretrain', 'mmseg')


def results(model: nn.Module, x: object) -> dict[str, Tensor]:
    """The outputs, and the gradients of all parameters for a random upstream one."""
    torch.manual_seed(0)
    model.zero_grad()
    # Stock blocks may write into the list they are given.
    outs = tree_leaves(model(list(x) if isinstance(x, list) else x))
    outs = [out for out in outs if isinstance(out, Tensor) and out.requires_grad]
    generator = torch.Generator().manual_seed(2)
    upstream = [torch.randn(out.shape, generator=generator) for out in outs]
    torch.autograd.backward(outs, upstream)
    found = {str(i): out.detach() for i, out in enumerate(outs)}
    return found | {
        name: p.grad for name, p in model.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize('name', MODELS)
def test_equal_and_fused(name):
    need(name.partition('-')[0])
    model, x = MODELS[name]()
    randomise(model)
    ours = copy.deepcopy(model)
    report = gn_det.fuse(ours)
    for training in (True, False):
        model.train(training)
        ours.train(training)
        expected, found = results(model, x), results(ours, x)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(found[key], value), key
        assert len(norms_of(ours)) == len(report)
        room = pairs(lambda: results(model, x))
        made = taken_in(lambda: results(ours, x))
        assert room.total() > 0
        assert made == room
    counted = {kind: len(getattr(report, kind)) for kind in core.KINDS}
    assert {k: n for k, n in counted.items() if n}.keys() == made.keys()
    assert not report.untouched

"""`torch.compile` takes backbone and neck of a fused model as one graph."""

from __future__ import annotations

import pytest
import torch
import torch._inductor.config
from mmdet.models.backbones import ResNet
from mmdet.models.necks import FPN
from torch import Tensor, nn

import gn_det
from tests.fusion.detectors import randomise


class Body(nn.Module):
    """Backbone and FPN as a detector has them."""

    def __init__(self) -> None:
        super().__init__()
        norm_cfg = dict(type='GN', num_groups=4)
        # Two stages: compiling takes its time per layer.
        self.backbone = ResNet(
            18,
            base_channels=8,
            stem_channels=8,
            num_stages=2,
            strides=(1, 2),
            dilations=(1, 1),
            out_indices=(0, 1),
            norm_cfg=norm_cfg,
        )
        self.neck = FPN([8, 16], 16, 3, norm_cfg=norm_cfg)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.neck(self.backbone(x))


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    # A pool of compiling processes costs more than it brings here.
    with torch._inductor.config.patch(compile_threads=1):
        yield
    torch.compiler.reset()


def step(body, model: nn.Module, x: Tensor) -> list[Tensor]:
    model.zero_grad()
    outs = body(x)
    generator = torch.Generator().manual_seed(1)
    upstream = [torch.randn(out.shape, generator=generator) for out in outs]
    torch.autograd.backward(outs, upstream)
    return [*(out.detach() for out in outs), *(p.grad for p in model.parameters())]


@pytest.mark.parametrize(
    ('backend', 'layout'),
    [
        ('aot_eager', 'nchw'),
        ('aot_eager', 'nhwc'),
        ('inductor', 'nchw'),
    ],
)
def test_one_graph_that_equals_eager(backend, layout):
    torch.manual_seed(0)
    model = Body()
    randomise(model)
    report = gn_det.fuse(model)
    # Stem and four blocks with a ReLU or an addition and one.
    assert len(report.relu) + len(report.add_relu) == 9
    x = torch.randn(2, 3, 64, 96)
    if layout == 'nhwc':
        model.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    expected = step(model, model, x)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    for found, value in zip(step(compiled, model, x), expected, strict=True):
        # Within what sums in another order differ by, relative to the whole tensor.
        assert (found - value).norm() <= 1e-5 * value.norm() + 1e-12


def test_operators_in_the_graph():
    """One operator a norm, with what it took in: no ReLU is left behind a norm."""
    kinds = []

    def backend(graph, inputs):
        kinds.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    model = Body()
    gn_det.fuse(model)
    torch.compile(model, backend=backend, fullgraph=True)(torch.randn(1, 3, 64, 96))
    assert sum('gn_det.group_norm' in kind for kind in kinds) == 10 + 4
    assert not any('relu' in kind for kind in kinds)

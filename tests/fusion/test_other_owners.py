"""Where somebody else has a say in a norm, a ReLU or a block, it is called as stock.

Subclasses, patched forwards, hooks, a norm's own activation, maps that only broadcast,
compiled modules: fused and stock give the same outputs, and the report says so.
"""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from mmcv.cnn import ConvModule
from mmdet.models.backbones import ResNet
from mmdet.models.necks import FPN
from mmengine.model import ExponentialMovingAverage
from torch import Tensor, nn
from torch.nn.utils import parametrize

import gn_det
from gn_det import FusedGroupNorm
from gn_det.fusion import FusedModule
from gn_det.fusion.calls import NOTHING
from tests.fusion.detectors import randomise

GN = dict(type='GN', num_groups=4)
OURS = dict(type='FusedGN', num_groups=4)
BACKBONE = dict(depth=18, base_channels=8, stem_channels=8)


def small_resnet(norm_cfg: dict = GN, **settings: object) -> ResNet:
    model = ResNet(norm_cfg=norm_cfg, **{**BACKBONE, **settings})
    randomise(model)
    return model


def small_fpn(norm_cfg: dict = GN, **settings: object) -> FPN:
    model = FPN([8, 16, 16], 16, 3, norm_cfg=norm_cfg, **settings)
    randomise(model)
    return model


def maps() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 8, 12, 12), (2, 16, 6, 6), (2, 16, 3, 3))
    return [torch.randn(shape, generator=generator) for shape in shapes]


def image() -> Tensor:
    return torch.randn((2, 3, 48, 48), generator=torch.Generator().manual_seed(0))


def assert_fused_as_stock(
    model: nn.Module, x: Tensor | list[Tensor], ours: nn.Module | None = None
) -> gn_det.fusion.FusionReport:
    """The outputs of a model and of its fused copy, or of one made the same way."""
    ours = copy.deepcopy(model) if ours is None else ours
    report = gn_det.fuse(ours)
    for a, b in zip(ours(x), model(x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    return report


class Lowered(FusedGroupNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - 0.5


def test_a_subclass_of_the_norm():
    model = small_resnet(OURS)
    model.layer1[0].gn2.__class__ = Lowered
    report = assert_fused_as_stock(model, image())
    assert (
        report.plain['layer1.0.gn2']
        == 'Lowered is a norm of its own kind, which takes nothing in'
    )


def test_a_forward_patched_onto_a_norm():
    def build() -> ResNet:
        model = small_resnet()
        norm = model.layer1[0].gn2
        norm.forward = lambda x: nn.GroupNorm.forward(norm, x) * 2
        return model

    assert_fused_as_stock(build(), image(), build())


def see(seen: list, name: str):
    def hook(module, inputs, output):
        seen.append((name, len(inputs), output.detach().clone()))
        return -output

    return hook


PLACES = {
    'norm1': lambda m: m.layer1[0].gn1,
    'norm2': lambda m: m.layer1[0].gn2,
    'relu': lambda m: m.layer1[0].relu,
    'stem': lambda m: m.gn1,
}


@pytest.mark.parametrize('place', PLACES)
def test_hooks_see_and_change_what_they_see_in_the_stock_model(place):
    runs = []
    for fuse in (False, True):
        model, seen = small_resnet(), []
        if fuse:
            gn_det.fuse(model)
        PLACES[place](model).register_forward_hook(see(seen, place))
        runs.append((seen, model(image())))
    (theirs, expected), (ours, found) = runs
    assert [s[:2] for s in ours] == [s[:2] for s in theirs]
    assert ours
    for (_, _, a), (_, _, b) in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('kind', ['norm', 'conv'])
def test_hooks_in_a_lateral_branch(kind):
    outs = []
    for fuse in (False, True):
        model, seen = small_fpn(), []
        if fuse:
            gn_det.fuse(model)
        conv = model.lateral_convs[0]
        (conv.norm if kind == 'norm' else conv).register_forward_hook(see(seen, kind))
        outs.append([*model(maps()), seen[0][2]])
    for a, b in zip(*outs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_backward_hooks_see_the_norms_gradient():
    """Which the ReLU has masked already."""
    seen = []
    for fuse in (False, True):
        torch.manual_seed(0)
        model = ConvModule(3, 8, 1, norm_cfg=GN, inplace=False)
        if fuse:
            gn_det.fuse(model)
        model.norm.register_full_backward_hook(
            lambda module, dx, dy: seen.append((len(dx), dy[0]))
        )
        model(image()).square().sum().backward()
    (theirs, expected), (ours, found) = seen
    assert ours == theirs == 1
    assert (expected == 0).any()
    torch.testing.assert_close(found, expected)


class Means(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3), keepdim=True)


def test_an_identity_that_broadcasts():
    model = small_resnet()
    model.layer1[0].downsample = Means()
    assert_fused_as_stock(model, image())


def classes(model: nn.Module) -> list[type]:
    return [type(module) for module in model.modules()]


class OwnConvModule(ConvModule):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).tanh()


@pytest.mark.parametrize(
    'lateral',
    [
        lambda c: nn.Sequential(nn.Conv2d(c, 16, 1), nn.GroupNorm(4, 16)),
        lambda c: OwnConvModule(c, 16, 1, norm_cfg=GN, act_cfg=None),
        lambda c: ConvModule(c, 16, 1, norm_cfg=GN),
        lambda c: ConvModule(
            c, 16, 1, norm_cfg=GN, act_cfg=None, order=('conv', 'act', 'norm')
        ),
    ],
    ids=['sequential', 'own', 'activation', 'order'],
)
def test_other_lateral_branches(lateral):
    model = small_fpn()
    model.lateral_convs = nn.ModuleList(lateral(c) for c in model.in_channels)
    randomise(model)
    report = assert_fused_as_stock(model, maps())
    ends_in_norm = isinstance(model.lateral_convs[0], nn.Sequential)
    assert len(report.add) == (2 if ends_in_norm else 0)


@pytest.mark.parametrize('relu', [False, True])
@pytest.mark.parametrize('source', ['on_input', 'on_lateral', 'on_output'])
def test_extra_levels_of_a_pyramid(source, relu):
    settings = dict(add_extra_convs=source, relu_before_extra_convs=relu)
    model = FPN([8, 16], 16, 4, norm_cfg=GN, **settings)
    randomise(model)
    report = assert_fused_as_stock(model, maps()[:2])
    assert report.add == ['lateral_convs.0.gn']
    assert report.plain['lateral_convs.1.gn'] == NOTHING


def test_an_error_leaves_the_model_as_it_was(monkeypatch):
    model = nn.Sequential(small_resnet(), small_fpn())
    before = classes(model)
    fused_norms = 'gn_det.fusion.hosts.mmdet.FusedFPN.fused_norms'
    monkeypatch.setattr(fused_norms, lambda m: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        gn_det.fuse(model)
    assert classes(model) == before


@pytest.mark.parametrize('recompute', [False, True])
def test_shapes_on_the_meta_device(recompute):
    with torch.device('meta'):
        model = FPN([8, 16, 16], 16, 3, norm_cfg=GN)
        gn_det.fuse(model, recompute=recompute)
        outs = model([torch.empty(m.shape) for m in maps()])
    assert [out.shape[2:] for out in outs] == [m.shape[2:] for m in maps()]


def test_a_map_too_many_is_refused():
    model = small_fpn()
    gn_det.fuse(model)
    with pytest.raises(AssertionError):
        model([*maps(), maps()[-1]])


def test_the_average_of_a_compiled_model_is_its_own():
    """torch keeps the compiled call of a module bound to it; copies have to drop it."""
    model = small_resnet()
    gn_det.fuse(model)
    model.compile(backend='eager')
    average = ExponentialMovingAverage(model)
    expected = average.module(image())[-1]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(average.module(image())[-1], expected)
    pickle.loads(pickle.dumps(model))


class WithoutCache(ConvModule):
    def __getstate__(self) -> dict:
        return {k: v for k, v in super().__getstate__().items() if k != 'cache'}


def test_what_a_class_leaves_out_of_its_pickles():
    model = WithoutCache(3, 8, 1, norm_cfg=GN)
    model.cache = lambda: None
    gn_det.fuse(model)
    other = pickle.loads(pickle.dumps(model))
    assert isinstance(other, FusedModule)
    assert not hasattr(other, 'cache')


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def test_parametrizations_on_top_stay():
    model = small_resnet()
    gn_det.fuse(model)
    parametrize.register_parametrization(model.layer1[0].gn1, 'weight', Doubled())
    expected = model(image())[-1]
    torch.testing.assert_close(copy.deepcopy(model)(image())[-1], expected)
    gn_det.unfuse(model)
    torch.testing.assert_close(model(image())[-1], expected, rtol=1e-4, atol=1e-4)
    parametrize.remove_parametrizations(model.layer1[0].gn1, 'weight')
    gn_det.unfuse(model)
    assert not any(issubclass(kind, FusedGroupNorm) for kind in classes(model))


def test_a_class_derived_from_a_fused_one_is_copied_as_itself():
    model = ConvModule(3, 8, 1, norm_cfg=GN)
    gn_det.fuse(model)
    kind = type('Derived', (type(model),), {'mine': lambda self: 1})
    model.__class__ = kind
    assert copy.deepcopy(model).mine() == 1

"""`recompute_activations`: the same bits with less kept, whatever is done to y."""

from __future__ import annotations

import contextlib
import gc
import threading

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from gn_det.ops import group_norm, recompute_activations, recomputed
from gn_det.ops.recompute import state
from tests.ops.cases import DEVICE, to_layout

CHANNELS = 8


class Chain(nn.Module):
    """Residual blocks: convolution → norm → ReLU, convolution → norm → add → ReLU."""

    def __init__(
        self,
        blocks: int,
        impl: str = 'torch',
        with_cp: bool = False,
        activation: str = 'relu',
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.impl = impl
        self.with_cp = with_cp
        self.activation = activation
        self.convs = nn.ModuleList(
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(2 * blocks)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(2, CHANNELS) for _ in range(2 * blocks))
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) / p[0].numel() ** 0.5)

    def norm(self, i: int, x: Tensor, residual: Tensor | None = None) -> Tensor:
        layer = self.norms[i]
        return group_norm(
            self.convs[i](x),
            layer.num_groups,
            layer.weight,
            layer.bias,
            activation=self.activation,
            residual=residual,
            impl=self.impl,
        )

    def block(self, i: int, x: Tensor) -> Tensor:
        return self.norm(2 * i + 1, self.norm(2 * i, x), x)

    def forward(self, x: Tensor) -> Tensor:
        for i in range(len(self.convs) // 2):
            if self.with_cp:
                x = checkpoint(self.block, i, x, use_reentrant=False)
            else:
                x = self.block(i, x)
        return x


def image(
    layout: str = 'nchw', dtype: torch.dtype = torch.float32, size: int = 5
) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((2, CHANNELS, size, size), generator=generator)
    return to_layout(x.to(DEVICE, dtype), layout).requires_grad_()


def upstream(y: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    dy = torch.randn(y.shape, generator=generator).to(y)
    return torch.empty_like(y).copy_(dy)


def slopes(function, inputs: list[Tensor], recompute: bool) -> list[Tensor]:
    """y and the gradient of each input."""
    if recompute:
        with recompute_activations():
            y = function()
    else:
        y = function()
    found = [y.detach().clone()]
    return found + list(torch.autograd.grad(y, inputs, upstream(y)))


def assert_same_bits(function, inputs: list[Tensor]) -> None:
    expected = slopes(function, inputs, recompute=False)
    found = slopes(function, inputs, recompute=True)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert a.stride() == b.stride()
        assert torch.equal(a, b)


class Storages(TorchDispatchMode):
    """The memory that operators returned inside, as far as it is still alive."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._made[StorageWeakRef(storage)] = storage.nbytes()
        return found

    def alive(self) -> int:
        """Bytes."""
        return sum(size for made, size in self._made.items() if not made.expired())


@pytest.mark.parametrize('layout', ['nchw', 'nhwc'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=['fp32', 'bf16'])
@pytest.mark.parametrize(
    ('impl', 'blocks', 'activation'),
    [('torch', 9, 'relu'), ('triton', 2, 'relu'), ('torch', 9, 'silu')],
    ids=['torch', 'triton', 'silu'],
)
def test_a_chain_longer_than_is_recomputed(impl, blocks, activation, dtype, layout):
    model = Chain(blocks, impl, activation=activation).to(DEVICE, dtype)
    x = image(layout, dtype)
    assert_same_bits(lambda: model(x), [x, *model.parameters()])


@pytest.mark.parametrize('activation', ['relu', 'silu'])
def test_memory_is_about_halved(activation):
    kept = {}
    for recompute in (False, True):
        model = Chain(6, activation=activation)
        storages = Storages()
        region = recompute_activations() if recompute else contextlib.nullcontext()
        with storages, region:
            y = model(image(size=16))
        gc.collect()
        kept[recompute] = storages.alive()
        (y * upstream(y)).sum().backward()
    maps = 2 * 16 * 16 * CHANNELS * 4
    # Per norm its input and its output; of the outputs every fourth residual one stays.
    assert kept[False] >= 24 * maps
    assert kept[True] <= 0.7 * kept[False]


def test_with_gradient_checkpointing():
    model = Chain(5, with_cp=True)
    x = image()
    assert_same_bits(lambda: model(x), [x, *model.parameters()])


def test_nested_regions_are_one():
    model = Chain(3)
    x = image()

    def nested():
        with recompute_activations():
            y = model(x)
        assert state.region is outer
        return y

    expected = slopes(lambda: model(x), [x], recompute=False)
    with recompute_activations():
        outer = state.region
        y = nested()
    (found,) = torch.autograd.grad(y, [x], upstream(y))
    assert torch.equal(found, expected[1])


@pytest.mark.parametrize(
    'view',
    [
        lambda y: y.flatten(1),
        lambda y: y.flatten(1)[:, 3:-2],
        lambda y: y.permute(0, 2, 3, 1).reshape(-1, CHANNELS),
        lambda y: y[:, 2:6],
        lambda y: y.unsqueeze(1).expand(-1, 2, -1, -1, -1),
    ],
    ids=['flatten', 'slice', 'permute', 'channels', 'expand'],
)
@pytest.mark.parametrize('layout', ['nchw', 'nhwc'])
def test_views_of_an_output(view, layout):
    """What keeps a view of y gets that view of the y made again."""
    model = Chain(1)
    x = image(layout)

    def function():
        part = view(model(x))
        return part * part.sigmoid()

    assert_same_bits(function, [x, *model.parameters()])


def test_a_residual_that_is_a_view():
    model = Chain(1)
    x = image()

    def function():
        y = model(x)
        return model.norm(0, y, y.transpose(2, 3))

    assert_same_bits(function, [x, *model.parameters()])


def test_an_output_edited_before_it_is_kept():
    model = Chain(1)
    x = image()
    inputs = [x, *model.convs.parameters()]
    assert_same_bits(lambda: model.convs[1](model.norm(0, x).mul_(2)), inputs)


def convolution_of_edited(model: Chain, x: Tensor, what: str | None) -> Tensor:
    """A convolution of relu(GN(x) + residual), one of the three edited after it."""
    tensors = {'x': model.convs[0](x), 'residual': x * 3}
    y = group_norm(tensors['x'], 2, activation='relu', residual=tensors['residual'])
    z = model.convs[1](y)
    tensors['y'] = y
    if what is not None:
        tensors[what].mul_(2)
    return z


@pytest.mark.parametrize('what', ['x', 'residual'])
def test_an_input_edited_after_it_was_kept_is_refused(what):
    """What would be made of it is another y, and gradients silently wrong."""
    model = Chain(1)
    x = image()
    with pytest.raises(RuntimeError, match=r'in-?\s?place'):
        slopes(lambda: convolution_of_edited(model, x, what), [x], recompute=True)


def test_a_frozen_weight_edited_before_backward_is_refused():
    """Where nothing but the residual is trained, the norm itself keeps no weight."""
    model = Chain(1)
    norm = model.norms[1].requires_grad_(False)
    x, behind = image(), nn.Conv2d(CHANNELS, CHANNELS, 1)
    with recompute_activations():
        y = group_norm(
            x.detach(), 2, norm.weight, norm.bias, activation='relu', residual=x
        )
        z = behind(y)
    with torch.no_grad():
        norm.weight.mul_(3)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        z.sum().backward()


def test_a_recomputed_function_runs_under_the_autocast_of_its_first_run():
    x, w, v = image(), torch.randn(5, 5), torch.randn(5, requires_grad=True)

    def step() -> Tensor:
        with torch.autocast(DEVICE, torch.bfloat16):
            y = recomputed(lambda t: t @ w.to(t.device), x)
        return y * v.to(y.device)

    assert_same_bits(step, [v])


def test_an_output_edited_after_it_was_kept_is_made_as_it_was():
    """Where autograd by itself has to refuse."""
    model = Chain(1)
    x = image()
    found = [
        slopes(lambda what=what: convolution_of_edited(model, x, what), [x], recompute)
        for what, recompute in ((None, False), ('y', True))
    ]
    for edited, unedited in zip(found[1], found[0], strict=True):
        assert torch.equal(edited, unedited)
    with pytest.raises(RuntimeError, match=r'in-?\s?place'):
        slopes(lambda: convolution_of_edited(model, x, 'y'), [x], recompute=False)


def test_two_backward_passes():
    model = Chain(5)
    x = image()
    parameters = [x, *model.parameters()]
    found = []
    for region in (contextlib.nullcontext(), recompute_activations()):
        with region:
            y = model(x)
        dy = upstream(y)
        for retain in (True, False):
            found.append(torch.autograd.grad(y, parameters, dy, retain_graph=retain))
    for gradients in found[1:]:
        for a, b in zip(gradients, found[0], strict=True):
            assert torch.equal(a, b)


def test_double_backward():
    model = Chain(4)
    x = image()
    found = []
    for region in (contextlib.nullcontext(), recompute_activations()):
        with region:
            y = model(x)
        first = torch.autograd.grad(
            y, [x, *model.parameters()], upstream(y), create_graph=True
        )
        penalty = sum(gradient.square().sum() for gradient in first)
        found.append(torch.autograd.grad(penalty, [x, model.convs[0].weight]))
    for a, b in zip(*found, strict=True):
        assert a.abs().max() > 0
        assert torch.equal(a, b)


def test_part_of_the_graph():
    """The gradient of an inner map alone asks for an inner recipe first."""
    model = Chain(6)
    x = image()
    found = []
    for region in (contextlib.nullcontext(), recompute_activations()):
        with region:
            inner = model.block(0, x)
            y = inner
            for i in range(1, 6):
                y = model.block(i, y)
        parts = torch.autograd.grad(inner, [x], upstream(y), retain_graph=True)
        found.append([*parts, *torch.autograd.grad(y, [x], upstream(y))])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_an_exception_ends_the_region():
    model = Chain(2)
    x = image()

    def fail():
        with recompute_activations():
            model(x)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert state.region is None
    assert_same_bits(lambda: model(x), [x, *model.parameters()])


def test_without_gradients_nothing_begins():
    with torch.no_grad(), recompute_activations():
        assert state.region is None
        assert not Chain(1)(image()).requires_grad
    with recompute_activations():
        frozen = Chain(1).requires_grad_(False)
        assert not frozen(image().detach()).requires_grad


def test_two_threads():
    """Each has a region of its own; neither sees the other's outputs."""
    model = Chain(4)
    images = [image() * factor for factor in (1, 2)]
    images = [x.detach().requires_grad_() for x in images]
    expected = [slopes(lambda x=x: model(x), [x], recompute=False) for x in images]
    found: list[list[Tensor]] = [[], []]
    both = threading.Barrier(2)

    def work(i: int) -> None:
        both.wait()
        for _ in range(5):
            found[i] = slopes(lambda: model(images[i]), [images[i]], recompute=True)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ours, theirs in zip(found, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a, b)

"""`torch.func`, forward-mode gradients and `torch.fx`, as with torch's Group Norm."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from gn_det.ops import group_norm, recompute_activations
from tests.ops.cases import DEVICE

N, C, G = 2, 8, 4


def ours(x: Tensor, weight: Tensor, bias: Tensor, r: Tensor) -> Tensor:
    return group_norm(x, G, weight, bias, activation='relu', residual=r)


def theirs(x: Tensor, weight: Tensor, bias: Tensor, r: Tensor) -> Tensor:
    return torch.relu(F.group_norm(x, G, weight, bias) + r)


def inputs(seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((N, C, 3, 5), (C,), (C,), (N, C, 3, 5))
    return tuple(torch.randn(s, generator=generator).to(DEVICE) for s in shapes)


def squared(function):
    return lambda *args: function(*args).square().sum()


@pytest.mark.parametrize(
    'transform',
    [
        lambda f: torch.func.jvp(f, inputs(), inputs(seed=1))[1],
        lambda f: torch.func.jacfwd(f, argnums=1)(*inputs()),
        lambda f: torch.func.jacrev(f, argnums=2)(*inputs()),
        lambda f: torch.func.grad(squared(f), argnums=(0, 1, 2, 3))(*inputs()),
        lambda f: torch.func.hessian(squared(f), argnums=1)(*inputs()),
        lambda f: torch.func.vmap(
            torch.func.grad(squared(f)), in_dims=(0, None, None, 0)
        )(*(t.unsqueeze(1) if t.ndim == 4 else t for t in inputs())),
    ],
    ids=['jvp', 'jacfwd', 'jacrev', 'grad', 'hessian', 'vmap-grad'],
)
def test_transforms(transform):
    torch.testing.assert_close(transform(ours), transform(theirs))


def test_a_compiled_transform():
    """Compiled, the operator would have no say in forward mode: a silent zero."""

    def tangent(function, backend: str | None) -> Tensor:
        def jvp(*args: Tensor) -> Tensor:
            return torch.func.jvp(function, args, inputs(seed=1))[1]

        return (torch.compile(jvp, backend=backend) if backend else jvp)(*inputs())

    expected = tangent(theirs, None)
    for backend in ('eager', 'aot_eager'):
        torch.compiler.reset()
        torch.testing.assert_close(tangent(ours, backend), expected)


@pytest.mark.parametrize('trained', [False, True])
def test_dual_numbers(trained):
    x, weight, bias, r = inputs()
    tangent = inputs(seed=1)[0]
    found = []
    for function in (ours, theirs):
        with forward_ad.dual_level():
            y = function(
                forward_ad.make_dual(x, tangent),
                weight.requires_grad_(trained),
                bias,
                r,
            )
            found.append(forward_ad.unpack_dual(y).tangent.detach())
    assert found[0].norm() > 1
    torch.testing.assert_close(*found)


def test_gradients_of_a_function_inside_a_recomputing_region():
    def within(*args: Tensor) -> Tensor:
        with recompute_activations():
            return ours(*args).square().sum()

    found = torch.func.grad(within)(*inputs())
    torch.testing.assert_close(found, torch.func.grad(squared(theirs))(*inputs()))


def test_fx_sees_one_node():
    """Wherever the function was imported from, and whatever it is called with."""
    traced = torch.fx.symbolic_trace(ours)
    calls = [node.target for node in traced.graph.nodes if node.op == 'call_function']
    assert calls == [group_norm]
    torch.testing.assert_close(traced(*inputs()), ours(*inputs()))


def test_tensors_with_a_say_are_asked():
    class Noted(Tensor):
        seen = ()

        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            cls.seen = (*cls.seen, func)
            return super().__torch_function__(func, types, args, kwargs or {})

    x, weight, bias, r = inputs()
    y = ours(x.as_subclass(Noted), weight, bias, r)
    assert type(y) is Noted
    assert Noted.seen[0] is group_norm
    torch.testing.assert_close(y.as_subclass(Tensor), ours(x, weight, bias, r))

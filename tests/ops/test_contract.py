"""What torch expects of an operator: OpInfo, opcheck, compile, autograd, autocast."""

import itertools
import re
import shutil

import pytest
import torch
import torch.nn.functional as F
from torch._inductor.utils import run_and_get_code
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db
from torch.utils._python_dispatch import TorchDispatchMode

from gn_det.ops import group_norm
from tests.ops.cases import (
    ACTIVATIONS,
    DEVICE,
    FLOOR,
    KINDS,
    LAYOUTS,
    make_case,
    run,
    to_layout,
)

IMPLS = ('torch', 'triton')
OP_INFO = next(op for op in op_db if op.name == 'nn.functional.group_norm')
MODULE_INFO = next(m for m in module_db if m.module_cls is torch.nn.GroupNorm)


def differentiable(*tensors):
    return [t for t in tensors if t is not None and t.requires_grad]


@pytest.mark.parametrize('impl', IMPLS)
@pytest.mark.parametrize(
    'samples', ['sample_inputs', 'reference_inputs'], ids=['samples', 'references']
)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_op_info(samples, dtype, impl):
    found = list(getattr(OP_INFO, samples)(DEVICE, dtype, requires_grad=True))
    assert found
    for sample in found:
        # make_tensor's eps of -0.5 may exceed a variance: then both give NaN.
        y = group_norm(sample.input, *sample.args, **sample.kwargs, impl=impl)
        expected = OP_INFO.op(sample.input, *sample.args, **sample.kwargs)
        tolerance = {'atol': 100 * FLOOR[dtype], 'rtol': 10 * FLOOR[dtype]}
        torch.testing.assert_close(y, expected, **tolerance, equal_nan=True)
        inputs = differentiable(
            sample.input, sample.kwargs.get('weight'), sample.kwargs.get('bias')
        )
        dy = torch.randn_like(y)
        ours = torch.autograd.grad(y, inputs, dy)
        theirs = torch.autograd.grad(expected, inputs, dy)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, **tolerance, equal_nan=True)


@pytest.mark.parametrize('impl', IMPLS)
def test_op_info_errors(impl):
    errors = list(OP_INFO.error_inputs(DEVICE))
    assert errors
    for error in errors:
        sample = error.sample_input
        with pytest.raises(error.error_type, match=error.error_regex):
            group_norm(sample.input, *sample.args, **sample.kwargs, impl=impl)


@pytest.mark.parametrize('impl', IMPLS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
def test_module_info(dtype, impl):
    if impl == 'triton' and dtype == torch.float64:
        pytest.skip('float64 is served by torch')
    found = MODULE_INFO.module_inputs_func(
        MODULE_INFO, DEVICE, dtype, requires_grad=True, training=True
    )
    for sample in found:
        construct = sample.constructor_input
        module = torch.nn.GroupNorm(
            *construct.args, **construct.kwargs, device=DEVICE, dtype=dtype
        )
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter)
        x = sample.forward_input.args[0]
        y = group_norm(
            x, module.num_groups, module.weight, module.bias, module.eps, impl=impl
        )
        expected = module(x)
        torch.testing.assert_close(y, expected)
        inputs = differentiable(x, module.weight, module.bias)
        dy = torch.randn_like(y)
        torch.testing.assert_close(
            torch.autograd.grad(y, inputs, dy),
            torch.autograd.grad(expected, inputs, dy),
            atol=1e-5,
            rtol=1e-5,
        )


def bad_inputs():
    x = torch.randn(2, 6, 3, device=DEVICE)
    vector = torch.randn(6, device=DEVICE)
    single = torch.randn(1, 2, device=DEVICE)
    return {
        'no-groups': (RuntimeError, 'greater than 0', (x, 0), {}),
        'long-weight': (RuntimeError, 'weight to be a vector', (x, 2, x[0, 0]), {}),
        'matrix-bias': (
            RuntimeError,
            'bias to be a vector',
            (x, 2, None, vector[None]),
            {},
        ),
        'double-weight': (
            RuntimeError,
            'weight in float32',
            (x, 2, vector.double()),
            {},
        ),
        'double-bias': (
            RuntimeError,
            'bias in float32',
            (x, 2, vector, vector.double()),
            {},
        ),
        'weight-elsewhere': (
            RuntimeError,
            'weight on .* but it is on meta',
            (x, 2, vector.to('meta')),
            {},
        ),
        'bias-elsewhere': (
            RuntimeError,
            'bias on .* but it is on meta',
            (x, 2, None, vector.to('meta')),
            {},
        ),
        'residual-elsewhere': (
            RuntimeError,
            'residual of shape .* on meta',
            (x, 2),
            {'residual': x.to('meta')},
        ),
        'integers': (RuntimeError, 'floating-point', (x.long(), 2), {}),
        'one-value': (ValueError, 'more than 1 value per channel', (single, 2), {}),
        'residual-shape': (
            RuntimeError,
            'residual of shape',
            (x, 2),
            {'residual': vector},
        ),
        'residual-dtype': (
            RuntimeError,
            'residual of shape',
            (x, 2),
            {'residual': x.double()},
        ),
        'activation': (
            ValueError,
            "None, 'relu' or 'silu'",
            (x, 2),
            {'activation': 'gelu'},
        ),
    }


@pytest.mark.parametrize('name', bad_inputs())
def test_errors_are_sentences(name):
    kind, sentence, args, kwargs = bad_inputs()[name]
    with pytest.raises(kind, match=sentence):
        group_norm(*args, **kwargs)


@pytest.mark.parametrize('impl', IMPLS)
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_opcheck_forward(layout, kind, impl):
    case = make_case((2, 4, 3, 5), 2, layout=layout, kind=kind)
    x, weight, bias, residual = (
        t if t is None else t.requires_grad_() for t in case.inputs
    )
    torch.library.opcheck(
        torch.ops.gn_det.group_norm.default,
        (x, 2, weight, bias, 1e-5, case.activation, residual, impl),
    )


@pytest.mark.parametrize('impl', IMPLS)
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_opcheck_backward(layout, kind, impl):
    case = make_case((2, 4, 3, 5), 2, layout=layout, kind=kind)
    y, mean, rstd = torch.ops.gn_det.group_norm(
        case.x, 2, case.weight, case.bias, 1e-5, case.activation, case.residual, impl
    )
    kept = {'residual_relu': y, 'residual_silu': case.residual}.get(kind)
    for needs in itertools.product([True, False], repeat=3):
        torch.library.opcheck(
            torch.ops.gn_det.group_norm_backward.default,
            (
                *(case.dy, case.x, 2, case.weight, case.bias, 1e-5),
                *(case.activation, kept, mean, rstd, list(needs), impl),
            ),
            test_utils=('test_schema', 'test_faketensor'),
        )


@pytest.mark.parametrize('with_weight', [True, False])
@pytest.mark.parametrize('activation', ['relu', 'silu'])
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('impl', IMPLS)
def test_every_choice_of_needed_gradients(impl, layout, activation, with_weight):
    """torch 2.13's own CPU kernel crashes or refuses for some of them."""
    case = make_case((2, 4, 3, 5), 2, layout=layout, kind=activation)
    weight = case.weight if with_weight else None
    wanted = None
    for needs in itertools.product([True, False], repeat=3):
        leaves = [
            t if t is None else t.detach().requires_grad_(need)
            for t, need in zip((case.x, weight, case.bias), needs, strict=True)
        ]
        if not any(t is not None and t.requires_grad for t in leaves):
            continue
        y = group_norm(leaves[0], 2, *leaves[1:], activation=activation, impl=impl)
        y.backward(case.dy)
        found = [None if t is None else t.grad for t in leaves]
        # The first choice asks for all three.
        wanted = wanted or found
        for one, all_of_them, need in zip(found, wanted, needs, strict=True):
            if one is None:
                assert not need or all_of_them is None
            else:
                assert need
                torch.testing.assert_close(one, all_of_them)


def odd_layouts():
    x = torch.randn(2, 8, 6, 5)
    last = x.contiguous(memory_format=torch.channels_last)
    yield x
    yield last
    yield last[:, :4]
    yield x[:, :, ::2]
    yield x.permute(0, 1, 3, 2)
    yield last[:1, :, :1, :1]
    yield x[:, :1]
    yield last[:, :1]
    yield torch.randn(2, 4)
    yield torch.randn(4, 2).t()
    yield torch.randn(2, 4, 3, 2, 5).contiguous(memory_format=torch.channels_last_3d)
    yield torch.randn(0, 4, 3, 3)


@pytest.mark.parametrize('impl', IMPLS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_fake_strides_are_the_real_ones(dtype, impl):
    for x in odd_layouts():
        x = x.to(DEVICE, dtype)
        residual = torch.randn_like(x)
        real = torch.ops.gn_det.group_norm(
            x, 1, None, None, 1e-5, 'relu', residual, impl
        )
        with FakeTensorMode() as mode:
            fake = torch.ops.gn_det.group_norm(
                mode.from_tensor(x),
                1,
                None,
                None,
                1e-5,
                'relu',
                mode.from_tensor(residual),
                impl,
            )
        for one, other in zip(real, fake, strict=True):
            assert one.dtype == other.dtype
            assert one.shape == other.shape
            assert one.stride() == other.stride()
        if x.numel():
            expected = F.group_norm(x, 1)
            assert real[0].shape == expected.shape
            if DEVICE == 'cpu':
                assert real[0].stride() == expected.stride()


@pytest.mark.parametrize('impl', IMPLS)
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_compiled_equals_eager(layout, kind, impl):
    case = make_case((2, 4, 3, 5), 2, layout=layout, kind=kind)
    torch._dynamo.reset()

    def function(x, weight, bias, residual):
        y = group_norm(
            x * 2,
            2,
            weight,
            bias,
            activation=case.activation,
            residual=residual,
            impl=impl,
        )
        return y + 1

    compiled = torch.compile(function, fullgraph=True, backend='aot_eager')
    results = []
    for f in (function, compiled):
        inputs = [t if t is None else t.detach().requires_grad_() for t in case.inputs]
        y = f(*inputs)
        gradients = torch.autograd.grad(
            y, [t for t in inputs if t is not None], case.dy
        )
        results.append((y, *gradients))
    for one, other in zip(*results, strict=True):
        assert one.stride() == other.stride()
        assert torch.equal(one, other)


def test_compiled_with_dynamic_shapes():
    torch._dynamo.reset()

    @torch.compile(fullgraph=True, backend='aot_eager', dynamic=True)
    def function(x):
        return group_norm(x, 2, activation='relu')

    for size in (5, 6, 9):
        x = torch.randn(2, 4, size, size + 1, device=DEVICE)
        torch.testing.assert_close(function(x), F.relu(F.group_norm(x, 2)))


@pytest.mark.skipif(
    DEVICE == 'cpu' and not shutil.which('g++'), reason='Inductor needs a C++ compiler'
)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_inductor_equals_eager(layout):
    """https://github.com/pytorch/pytorch/issues/140913: gradients in channels-last."""
    case = make_case((2, 8, 6, 5), 2, layout=layout, kind='residual_relu')
    torch._dynamo.reset()

    def function(x, weight, bias, residual):
        return group_norm(
            x, 2, weight, bias, activation='relu', residual=residual, impl='torch'
        )

    results = []
    for f in (function, torch.compile(function, fullgraph=True)):
        inputs = [t.detach().requires_grad_() for t in case.inputs]
        y = f(*inputs)
        results.append((y, *torch.autograd.grad(y, inputs, case.dy)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.skipif(
    DEVICE == 'cpu' and not shutil.which('g++'), reason='Inductor needs a C++ compiler'
)
def test_inductor_converts_no_map_around_the_op():
    """In channels-last: the only kernel it writes adds the two gradients of a map."""
    torch._dynamo.reset()
    convs = [torch.nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(2)]
    model = torch.nn.ModuleList(convs).to(DEVICE, memory_format=torch.channels_last)
    x = to_layout(torch.randn(2, 8, 6, 5, device=DEVICE), 'nhwc').requires_grad_()

    @torch.compile(fullgraph=True)
    def function(x):
        y = group_norm(model[0](x), 2, activation='relu')
        return group_norm(model[1](y), 2, activation='silu', residual=y)

    def step():
        y = function(x)
        y.backward(to_layout(torch.randn(y.shape, device=DEVICE), 'nhwc'))

    _, (forward, backward) = run_and_get_code(step)
    written = [
        set(re.findall(r'\b((?:cpp|triton)\w*_fused_\w+)', code))
        for code in (forward, backward)
    ]
    assert written[0] == set()
    assert len(written[1]) == 1
    assert '_fused_add_' in written[1].pop()


@pytest.mark.parametrize('operator', [False, True], ids=['eager', 'operator'])
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_gradcheck(layout, kind, operator):
    # Away from the kink of the ReLU, where finite differences mean nothing.
    case = make_case((2, 4, 2, 3), 2, dtype=torch.float64, layout=layout, kind=kind)

    def function(x, weight, bias, residual):
        if operator:
            return torch.ops.gn_det.group_norm(
                x, 2, weight, bias, 1e-5, case.activation, residual, 'torch'
            )[0]
        return group_norm(
            x, 2, weight, bias, activation=case.activation, residual=residual
        )

    inputs = [t if t is None else t.requires_grad_() for t in case.inputs]
    y = function(*inputs)
    if case.activation == 'relu':
        z = group_norm(case.x, 2, case.weight, case.bias, residual=case.residual)
        assert z.abs().min() > 1e-4
        assert (y == 0).any()
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize('operator', [False, True], ids=['eager', 'operator'])
@pytest.mark.parametrize('kind', KINDS)
def test_double_backward_of_triton(kind, operator):
    case = make_case((2, 4, 3, 5), 2, kind=kind)
    results = []
    for fused in (True, False):
        inputs = [t if t is None else t.detach().requires_grad_() for t in case.inputs]
        x, weight, bias, residual = inputs
        if fused and operator:
            y = torch.ops.gn_det.group_norm(
                x, 2, weight, bias, 1e-5, case.activation, residual, 'triton'
            )[0]
        elif fused:
            y = group_norm(
                x,
                2,
                weight,
                bias,
                activation=case.activation,
                residual=residual,
                impl='triton',
            )
        else:
            y = F.group_norm(x, 2, weight, bias)
            y = y if residual is None else y + residual
            y = ACTIVATIONS[case.activation](y)
        leaves = [t for t in inputs if t is not None]
        dx, dweight = torch.autograd.grad(y, [x, weight], case.dy, create_graph=True)
        penalty = dx.square().sum() + dweight.square().sum()
        results.append(torch.autograd.grad(penalty, leaves, allow_unused=True))
    for one, other in zip(*results, strict=True):
        if other is None or one is None:
            assert one is None or not one.any()
            assert other is None or not other.any()
        else:
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('impl', IMPLS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_autocast_follows_x(dtype, impl):
    case = make_case((2, 4, 3, 5), 2, dtype=dtype, kind='residual_relu')
    plain, plain_gradients = run(case, impl)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        y, gradients = run(case, impl)
    assert y.dtype == dtype
    assert torch.equal(y, plain)
    for one, other in zip(gradients, plain_gradients, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def kept_by(function):
    """The tensors that autograd keeps while function runs."""
    kept = []

    def pack(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = function()
    return y, kept


@pytest.mark.parametrize('impl', IMPLS)
@pytest.mark.parametrize('operator', [False, True], ids=['eager', 'operator'])
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_what_is_kept_for_backward(dtype, kind, operator, impl):
    case = make_case((2, 4, 3, 5), 2, dtype=dtype, kind=kind)

    def function(x, weight, bias, residual):
        if operator:
            return torch.ops.gn_det.group_norm(
                x, 2, weight, bias, 1e-5, case.activation, residual, impl
            )[0]
        return group_norm(
            x,
            2,
            weight,
            bias,
            activation=case.activation,
            residual=residual,
            impl=impl,
        )

    _, kept = kept_by(lambda: function(*case.inputs))
    assert kept == []

    inputs = [t if t is None else t.detach().requires_grad_() for t in case.inputs]
    with torch.no_grad():
        _, kept = kept_by(lambda: function(*inputs))
    assert kept == []

    y, kept = kept_by(lambda: function(*inputs))
    maps = [t for t in kept if t.shape == case.x.shape]
    allowed = {inputs[0].data_ptr()}
    if kind == 'residual_relu':
        allowed.add(y.data_ptr())
    if kind == 'residual_silu':
        allowed.add(inputs[3].data_ptr())
    assert {t.data_ptr() for t in maps} == allowed
    statistics = [t for t in kept if t.shape == (2, 2)]
    assert [t.dtype for t in statistics] == [torch.float32] * 2
    assert len(kept) == len(maps) + 2 + sum(t is not None for t in inputs[1:3])

    only_residual = [t if t is None else t.detach() for t in inputs]
    if only_residual[3] is not None:
        only_residual[3].requires_grad_()
        y, kept = kept_by(lambda: function(*only_residual))
        if kind == 'residual_silu':
            # Its slope is that of the whole sum.
            assert len(kept) == 2 + 2 + 2
        else:
            expected = {y.data_ptr()} if kind == 'residual_relu' else set()
            assert {t.data_ptr() for t in kept} == expected


@pytest.mark.parametrize('activation', ['relu', 'silu'])
@pytest.mark.parametrize('impl', IMPLS)
def test_one_tensor_as_input_and_residual(impl, activation):
    x = torch.randn(2, 4, 3, 5, device=DEVICE, dtype=torch.float32)
    dy = torch.randn_like(x)
    results = []
    for function in (
        lambda x: group_norm(x, 2, residual=x, activation=activation, impl=impl),
        lambda x: ACTIVATIONS[activation](F.group_norm(x, 2) + x),
    ):
        leaf = x.clone().requires_grad_()
        (dx,) = torch.autograd.grad(function(leaf), leaf, dy, create_graph=True)
        (second,) = torch.autograd.grad(dx.square().sum(), leaf)
        results.append((dx, second))
    torch.testing.assert_close(*results, atol=1e-4, rtol=1e-4)


def test_output_changed_in_place_is_noticed():
    case = make_case((2, 4, 3, 5), 2, kind='residual_relu')
    x = case.x.requires_grad_()
    y = group_norm(x, 2, activation='relu', residual=case.residual)
    y.mul_(2)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        torch.autograd.grad(y, x, case.dy)


def test_checkpointed_gradients_are_equal():
    case = make_case((2, 4, 3, 5), 2, kind='relu')

    def function(x):
        return group_norm(x, 2, case.weight, case.bias, activation='relu')

    leaf = case.x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(function(leaf), leaf, case.dy)
    y = torch.utils.checkpoint.checkpoint(function, leaf, use_reentrant=False)
    (dx,) = torch.autograd.grad(y, leaf, case.dy)
    assert torch.equal(dx, expected)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_three_dimensional_maps(layout):
    x = to_layout(torch.randn(2, 4, 3, 5, 2, device=DEVICE), layout)
    y = group_norm(x, 2, impl='triton')
    torch.testing.assert_close(y, F.group_norm(x, 2))
    assert y.stride() == x.stride()


@pytest.mark.parametrize('impl', IMPLS)
def test_eager_takes_the_short_path_unless_intercepted(impl):
    class Listener(TorchDispatchMode):
        seen = ()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.seen = (*self.seen, func)
            return func(*args, **(kwargs or {}))

    x = torch.randn(2, 4, 3, device=DEVICE, requires_grad=True)
    eager = group_norm(x, 2, impl=impl)
    assert 'GeneratedBackwardFor' not in eager.grad_fn.name()
    with Listener() as listener:
        heard = group_norm(x, 2, impl=impl)
    assert torch.ops.gn_det.group_norm.default in listener.seen
    assert torch.equal(eager, heard)

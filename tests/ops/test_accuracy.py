"""Outputs and gradients of both implementations against the fp64 reference."""

import doctest
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.shapes import SHAPES
from gn_det.ops import group_norm, triton_launch
from gn_det.ops.reference import group_norm_bwd_ref, group_norm_ref
from tests.ops.cases import (
    ACTIVATIONS,
    DEVICE,
    KINDS,
    LAYOUTS,
    LIMITS,
    assert_accurate,
    make_case,
    run,
    run_torch,
)

DTYPES = {
    'fp32': torch.float32,
    'fp16': torch.float16,
    'bf16': torch.bfloat16,
}


@pytest.mark.parametrize('kind', KINDS)
def test_reference_equals_torch(kind):
    case = make_case((3, 12, 5, 7), 4, dtype=torch.float64, kind=kind)
    _, expected = run(case, 'torch')
    x = case.x.clone().requires_grad_()
    y, mean, rstd = group_norm_ref(
        x, 4, case.weight, case.bias, 1e-5, case.activation, case.residual
    )
    z = torch.nn.functional.group_norm(case.x, 4, case.weight, case.bias)
    z = z if case.residual is None else z + case.residual
    torch.testing.assert_close(y, ACTIVATIONS[case.activation](z))
    groups = case.x.reshape(3, 4, -1)
    torch.testing.assert_close(mean, groups.mean(-1))
    torch.testing.assert_close(rstd, (groups.var(-1, correction=0) + 1e-5).rsqrt())

    (dx,) = torch.autograd.grad(y, x, case.dy)
    closed = group_norm_bwd_ref(
        case.dy,
        case.x,
        4,
        case.weight,
        case.bias,
        1e-5,
        case.activation,
        case.residual,
    )
    torch.testing.assert_close(closed[0], dx)
    for value, other in zip(closed, expected, strict=True):
        if other is not None:
            torch.testing.assert_close(value, other)


def test_examples_of_the_derivation(repository):
    path = repository / 'docs' / 'math.md'
    result = doctest.testfile(str(path), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('dtype', DTYPES)
def test_torch(dtype, layout, kind):
    for seed, mean in enumerate((0.0, 3.0, 300.0)):
        case = make_case(
            (2, 24, 9, 7),
            4,
            dtype=DTYPES[dtype],
            layout=layout,
            kind=kind,
            mean=mean,
            seed=seed,
        )
        assert_accurate(case, 'torch')


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('regime', LIMITS)
def test_triton(use_limits, regime, dtype, layout, kind):
    use_limits(LIMITS[regime])
    # The statistics do not know what follows them: every mean once per addition.
    means = (3.0,) if 'silu' in kind else (0.0, 3.0, 300.0)
    for seed, mean in enumerate(means):
        case = make_case(
            (2, 4, 9, 14),
            2,
            dtype=DTYPES[dtype],
            layout=layout,
            kind=kind,
            mean=mean,
            seed=seed,
        )
        assert_accurate(case, 'triton')


def test_forced_regimes_are_what_they_say():
    for channels_last in (False, True):
        found = {}
        for name, limits in LIMITS.items():
            found[name] = triton_launch.LaunchConfig.for_shape(
                2,
                4,
                126,
                2,
                itemsize=4,
                channels_last=channels_last,
                sms=triton_launch.INTERPRETER_SMS,
                limits=limits,
            )
        for side in ('fwd', 'bwd'):
            tiles = {name: getattr(config, side) for name, config in found.items()}
            assert tiles['on-chip'].on_chip
            assert not tiles['split'].on_chip
            assert tiles['split'].splits > 1
            assert tiles['split'].steps == 1
            assert tiles['steps'].steps > 1


@pytest.mark.parametrize('regime', ['on-chip', 'split'])
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('entry', SHAPES, ids=lambda shape: shape.name)
def test_detector_shapes(use_limits, entry, layout, regime):
    """Every row of the shape table, its maps shrunk to an odd remainder of theirs."""
    use_limits(
        LIMITS['on-chip']
        if regime == 'on-chip'
        else replace(LIMITS['split'], split_fwd_bytes=8192, split_bwd=1024)
    )
    shape = (2, entry.C, entry.H % 5 + 3, entry.W % 4 + 5)
    case = make_case(shape, entry.G, layout=layout, kind=entry.kind)
    assert_accurate(case, 'triton')


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('regime', LIMITS)
def test_small_spread_around_a_large_mean(use_limits, regime, layout):
    """https://github.com/pytorch/pytorch/issues/40302: mean 100, std 0.01."""
    use_limits(LIMITS[regime])
    case = make_case((2, 4, 11, 12), 2, layout=layout, mean=100.0, std=0.01)
    assert_accurate(case, 'triton')
    _, _, rstd = triton_launch.group_norm_fwd(case.x, 2, None, None, 1e-5, None, None)
    _, _, exact = group_norm_ref(case.x.double(), 2)
    # A partial mean is rounded to half an ulp of 100, 4e-6, or 4e-4 of std.
    assert ((rstd.double() - exact).abs() / exact).max() < 1e-4


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('regime', LIMITS)
def test_outlier_at_the_start_of_a_group(use_limits, regime, layout):
    """A shift by the first element would lose the variance of the others."""
    use_limits(LIMITS[regime])
    case = make_case((1, 4, 11, 12), 1, layout=layout, mean=0.0)
    case.x[:, 0, 0, 0] = 1e4
    assert_accurate(case, 'triton')


@pytest.mark.parametrize('impl', ['torch', 'triton'])
@pytest.mark.parametrize('regime', LIMITS)
def test_constant_group(use_limits, regime, impl):
    use_limits(LIMITS[regime])
    x = torch.full((2, 4, 9, 16), 300.1, device=DEVICE)
    weight = torch.randn(4, device=DEVICE)
    bias = torch.randn(4, device=DEVICE)
    y = group_norm(x, 2, weight, bias, impl=impl)
    expected = bias[None, :, None, None].expand_as(y)
    # rstd is 316 and one ulp of 300 is 3e-5, so that torch too is off by up to 1e-2.
    torch.testing.assert_close(y, expected, atol=2e-2, rtol=0)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('regime', LIMITS)
@pytest.mark.parametrize(
    ('value', 'kind'),
    [(float('nan'), 'relu'), (float('inf'), 'relu'), (float('inf'), 'silu')],
)
@pytest.mark.filterwarnings('ignore:invalid value encountered')
def test_nan_and_inf_spread_over_their_group_only(
    use_limits, regime, layout, value, kind
):
    use_limits(LIMITS[regime])
    case = make_case((2, 4, 9, 8), 2, layout=layout, kind=kind)
    case.x[1, 2, 4, 4] = value
    y, (dx, _, _, _) = run(case, 'triton')
    assert y[1, 2:].isnan().all()
    assert dx[1, 2:].isnan().all()
    assert y[0].isfinite().all()
    assert y[1, :2].isfinite().all()
    assert dx[0].isfinite().all()


@pytest.mark.parametrize('regime', LIMITS)
def test_nan_in_residual_passes_the_relu(use_limits, regime):
    use_limits(LIMITS[regime])
    case = make_case((2, 4, 9, 8), 2, kind='residual_relu')
    case.residual[1, 2, 4, 4] = float('nan')
    y, (dx, _, _, dresidual) = run(case, 'triton')
    assert y.isnan().sum() == 1
    assert y[1, 2, 4, 4].isnan()
    assert dresidual[1, 2, 4, 4] == case.dy[1, 2, 4, 4]
    assert dx.isfinite().all()


@pytest.mark.parametrize('impl', ['torch', 'triton'])
@pytest.mark.parametrize('regime', ['on-chip', 'split'])
@pytest.mark.filterwarnings('ignore:invalid value encountered')
@pytest.mark.filterwarnings('ignore:overflow encountered in exp')
def test_silu_of_what_is_not_finite_is_torchs(use_limits, regime, impl):
    use_limits(LIMITS[regime])
    case = make_case((4, 4, 9, 8), 2, kind='residual_silu')
    values = torch.tensor([float('nan'), float('inf'), -float('inf'), -200.0])
    case.residual[:, 2, 4, 4] = values.to(DEVICE)
    y, gradients = run(case, impl)
    y_torch, expected = run_torch(case)
    assert y[0, 2, 4, 4].isnan()
    tolerance = {'atol': 1e-4, 'rtol': 1e-4, 'equal_nan': True}
    torch.testing.assert_close(y, y_torch, **tolerance)
    torch.testing.assert_close(gradients, expected, **tolerance)


@pytest.mark.parametrize('impl', ['torch', 'triton'])
@pytest.mark.parametrize('kind', ['relu', 'residual_relu'])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_relu_mask_is_that_of_the_stored_output(layout, kind, impl):
    """Outputs that round to zero in 16 bits get no gradient, as with eager torch."""
    case = make_case(
        (2, 4, 9, 8), 2, dtype=torch.float16, layout=layout, kind=kind, mean=0.0
    )
    # A zero weight leaves the bias: half of the smallest float16 rounds to zero.
    tiny = torch.finfo(torch.float16).smallest_normal / 1024
    case.weight.zero_()
    case.bias.copy_(torch.tensor([tiny / 4, tiny * 4, 0.0, -tiny]))
    if case.residual is not None:
        case.residual.zero_()
    y, (_, _, dbias, _) = run(case, impl)
    assert (y[:, 1] > 0).all()
    assert (y[:, [0, 2, 3]] == 0).all()
    assert dbias[1] != 0
    assert (dbias[[0, 2, 3]] == 0).all()


@pytest.mark.parametrize('regime', LIMITS)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_equal_bits_from_run_to_run(use_limits, layout, regime):
    use_limits(LIMITS[regime])
    case = make_case((2, 4, 9, 14), 2, layout=layout, kind='residual_relu')
    first = run(case, 'triton')
    second = run(case, 'triton')
    assert torch.equal(first[0], second[0])
    for one, other in zip(first[1], second[1], strict=True):
        assert one is None or torch.equal(one, other)


@pytest.mark.parametrize('impl', ['torch', 'triton'])
@pytest.mark.parametrize('kind', ['plain', 'residual_relu'])
@pytest.mark.parametrize(('layout', 'dy_layout'), [LAYOUTS, LAYOUTS[::-1]])
def test_dy_in_the_other_layout(layout, dy_layout, kind, impl):
    case = make_case((2, 8, 5, 7), 4, layout=layout, dy_layout=dy_layout, kind=kind)
    assert case.dy.stride() != case.x.stride()
    assert_accurate(case, impl)
    _, (dx, _, _, _) = run(case, impl)
    assert dx.stride() == case.x.stride()


@pytest.mark.parametrize('impl', ['torch', 'triton'])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_slices(layout, impl):
    """Slices that are dense in no format."""
    case = make_case((2, 12, 9, 10), 4, layout=layout, kind='residual_relu')
    for part in (
        (slice(None), slice(4, 12), slice(None), slice(None)),
        (slice(None), slice(None), slice(1, 8), slice(2, 9)),
        (slice(1, 2), slice(None), slice(None, None, 2), slice(None)),
    ):
        C = case.x[part].shape[1]
        sliced = replace(
            case,
            x=case.x[part],
            weight=case.weight[:C],
            bias=case.bias[:C],
            residual=case.residual[part],
            dy=case.dy[part],
        )
        assert_accurate(sliced, impl)


@pytest.mark.parametrize('impl', ['torch', 'triton'])
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_no_samples(layout, kind, impl):
    case = make_case((0, 8, 14, 14), 4, layout=layout, kind=kind)
    y, (dx, dweight, dbias, _) = run(case, impl)
    assert y.shape == dx.shape == case.x.shape
    assert (dweight == 0).all()
    assert (dbias == 0).all()


@pytest.mark.parametrize('regime', LIMITS)
@pytest.mark.parametrize(
    ('shape', 'num_groups'),
    [
        ((2, 6), 3),
        ((3, 5), 1),
        ((2, 8, 1, 1), 2),
        ((2, 6, 7), 6),
        ((1, 1, 3, 5), 1),
        ((2, 12, 3, 5, 2), 4),
        ((1, 3, 13, 21), 1),
        ((2, 20, 3, 3), 4),
        ((1, 34, 3, 3), 2),
        ((1, 600, 1, 2), 1),
    ],
    ids=str,
)
def test_ranks_and_odd_sizes(use_limits, shape, num_groups, regime):
    use_limits(LIMITS[regime])
    for layout in LAYOUTS if len(shape) in (4, 5) else LAYOUTS[:1]:
        case = make_case(shape, num_groups, layout=layout, kind='residual_relu')
        assert_accurate(case, 'triton')


@pytest.mark.parametrize('N', [1, 2, 128, 129])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_batch_sizes(layout, N):
    case = make_case((N, 4, 2, 3), 2, layout=layout, kind='relu')
    assert_accurate(case, 'triton')


@pytest.mark.parametrize('impl', ['torch', 'triton'])
@pytest.mark.parametrize('weight', [True, False])
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('regime', ['on-chip', 'split'])
def test_without_weight_or_bias(use_limits, regime, layout, bias, weight, impl):
    use_limits(LIMITS[regime])
    case = make_case(
        (2, 8, 5, 7), 4, layout=layout, kind='relu', weight=weight, bias=bias
    )
    assert_accurate(case, impl)


@pytest.mark.parametrize('impl', ['torch', 'triton'])
@pytest.mark.parametrize('dtype', ['fp16', 'bf16'])
def test_weight_in_the_dtype_of_x(dtype, impl):
    case = make_case(
        (2, 8, 5, 7), 4, dtype=DTYPES[dtype], kind='relu', weight_dtype=DTYPES[dtype]
    )
    assert_accurate(case, impl)


@pytest.mark.parametrize('regime', ['on-chip', 'split'])
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_partial_needs_give_equal_gradients(use_limits, layout, kind, regime):
    """Frozen inputs change nothing in the gradients of the others."""
    use_limits(LIMITS[regime])
    case = make_case((2, 8, 5, 7), 4, layout=layout, kind=kind)
    _, full = run(case, 'triton')
    present = [i for i, t in enumerate(case.inputs) if t is not None]
    for wanted in present:
        inputs = list(case.inputs)
        inputs[wanted] = inputs[wanted].detach().requires_grad_()
        x, weight, bias, residual = inputs
        y = group_norm(
            x,
            4,
            weight,
            bias,
            activation=case.activation,
            residual=residual,
            impl='triton',
        )
        (gradient,) = torch.autograd.grad(y, inputs[wanted], case.dy)
        torch.testing.assert_close(gradient, full[wanted])


@pytest.mark.filterwarnings('ignore:overflow encountered in exp')
@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    N=st.integers(1, 3),
    G=st.integers(1, 4),
    D=st.integers(1, 9),
    spatial=st.lists(st.integers(1, 9), min_size=0, max_size=3),
    layout=st.sampled_from(LAYOUTS),
    kind=st.sampled_from(list(KINDS)),
    dtype=st.sampled_from(list(DTYPES)),
    regime=st.sampled_from(list(LIMITS)),
    mean=st.sampled_from([0.0, 3.0, 300.0]),
    affine=st.tuples(st.booleans(), st.booleans()),
    seed=st.integers(0, 2**16),
)
def test_any_shape(
    use_limits, N, G, D, spatial, layout, kind, dtype, regime, mean, affine, seed
):
    use_limits(LIMITS[regime])
    shape = (N, G * D, *spatial)
    if N * D * max(1, torch.Size(spatial).numel()) == 1:
        shape = (N + 1, *shape[1:])
    case = make_case(
        shape,
        G,
        dtype=DTYPES[dtype],
        layout=layout,
        kind=kind,
        mean=mean,
        weight=affine[0],
        bias=affine[1],
        seed=seed,
    )
    assert_accurate(case, 'triton')

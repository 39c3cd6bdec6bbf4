"""Offsets beyond 2**31 elements: emulated in the interpreter, real on a GPU."""

import pytest
import torch

from gn_det.ops import group_norm, triton_launch
from gn_det.ops.reference import group_norm_bwd_ref, group_norm_ref
from tests.ops.cases import LIMITS

SAMPLES = 2**26 + 1
UNPOISONED = {
    name: getattr(triton_launch, name) for name in ('_empty_like', '_new_empty')
}


@pytest.fixture
def last_sample_only(monkeypatch):
    """Runs only the programs of the last sample, and leaves memory untouched."""
    from triton.runtime.interpreter import interpreter_builder

    call = triton_launch.Launch.__call__
    offset = 0

    def set_grid_idx(x, y, z):
        interpreter_builder.grid_idx = (x + offset, y, z)

    def call_last(launch, *args):
        nonlocal offset
        programs = launch.grid[0] // SAMPLES
        offset = launch.grid[0] - programs
        launch.grid = (programs, 1, 1)
        call(launch, *args)

    monkeypatch.setattr(interpreter_builder, 'set_grid_idx', set_grid_idx)
    monkeypatch.setattr(triton_launch.Launch, '__call__', call_last)
    for name, empty in UNPOISONED.items():
        monkeypatch.setattr(triton_launch, name, empty)


@pytest.mark.skipif(
    torch.cuda.is_available(), reason='a GPU runs the real thing, see below'
)
@pytest.mark.parametrize('regime', ['on-chip', 'split'])
@pytest.mark.parametrize('channels_last', [False, True], ids=['nchw', 'nhwc'])
def test_last_sample_of_a_large_batch(
    use_limits, last_sample_only, channels_last, regime
):
    """The memory of the other samples is never touched, hence never committed."""
    use_limits(LIMITS[regime])
    fmt = torch.channels_last if channels_last else torch.contiguous_format
    shape = (SAMPLES, 2, 4, 4)
    x = torch.empty(shape, dtype=torch.float16, memory_format=fmt)
    dy = torch.empty(shape, dtype=torch.float16, memory_format=fmt)
    assert x.numel() > 2**31
    x[-1] = torch.randn(shape[1:])
    dy[-1] = torch.randn(shape[1:])
    y, mean, rstd = triton_launch.group_norm_fwd(x, 2, None, None, 1e-5, 'relu', None)
    exact = x[-1:].double()
    expected, mean_ref, rstd_ref = group_norm_ref(exact, 2, activation='relu')
    torch.testing.assert_close(mean[-1:].double(), mean_ref, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(rstd[-1:].double(), rstd_ref, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(y[-1:].double(), expected, atol=2e-3, rtol=2e-3)

    triton_launch.clear_plans()
    dx, _, _, _ = triton_launch.group_norm_bwd(
        *(dy, x, 2, None, None, 1e-5, 'relu', None, mean, rstd, (True, False, False))
    )
    expected, _, _, _ = group_norm_bwd_ref(
        dy[-1:].double(), exact, 2, activation='relu'
    )
    torch.testing.assert_close(dx[-1:].double(), expected, atol=2e-3, rtol=2e-3)


@pytest.mark.gpu
@pytest.mark.parametrize('channels_last', [False, True], ids=['nchw', 'nhwc'])
def test_more_than_two_to_the_31_elements(channels_last):
    fmt = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.empty(
        (9, 256, 1024, 1024), dtype=torch.bfloat16, device='cuda', memory_format=fmt
    ).normal_()
    assert x.numel() > 2**31
    y = group_norm(x, 32, impl='triton')
    expected = group_norm(x[-1:].contiguous(memory_format=fmt), 32, impl='triton')
    # Another batch size is split differently, so the last bit may differ.
    torch.testing.assert_close(y[-1:], expected)

"""Poisons the launcher's memory, and forces regimes where a test asks for one."""

import pytest
import torch

from gn_det.ops import triton_launch


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Every allocation of the launcher starts as NaN: unwritten elements show."""
    for name in ('_empty_like', '_new_empty'):
        empty = getattr(triton_launch, name)
        monkeypatch.setattr(triton_launch, name, _poisoning(empty))


def _poisoning(empty):
    return lambda *args, **kwargs: empty(*args, **kwargs).fill_(float('nan'))


@pytest.fixture(autouse=True)
def single_thread():
    """Small tensors: threads cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def use_limits(monkeypatch):
    """Replaces the launcher's size limits, and so the regime, for one test."""

    def use(limits):
        monkeypatch.setattr(triton_launch, 'LIMITS', limits)
        triton_launch.clear_plans()

    yield use
    triton_launch.clear_plans()

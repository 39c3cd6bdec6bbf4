"""Benchmarks as a CPU can run them: the pipeline is real, the clock is not."""

import pytest
import torch

from benchmarks.results import Environment
from benchmarks.timing import Quantiles


@pytest.fixture(autouse=True)
def single_thread():
    """Small tensors: threads cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def environment() -> Environment:
    """What an H200 would write."""
    return Environment(
        gpu='NVIDIA H200',
        torch='2.15.0+cu130',
        triton='3.9.0',
        commit='abc1234',
        date='2026-11-21',
        python='3.12.3',
    )


@pytest.fixture
def timer():
    """Runs what it is given once, and answers half a millisecond."""

    def measure(run, calls: int) -> Quantiles:
        assert calls >= 1
        run()
        return Quantiles(0.5, 0.4, 0.6)

    return measure

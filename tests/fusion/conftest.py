"""Imports gn_det before a test module imports mmdet, and keeps torch to one thread."""

import pytest
import torch

import gn_det  # noqa: F401


@pytest.fixture(autouse=True, scope='module')
def single_thread():
    """Small maps: threads cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

"""A process in which Triton compiles: the tests' own interprets."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest
import torch


@pytest.fixture(scope='session')
def compiling() -> Iterator[Callable[..., Any]]:
    """`compiling(function, *arguments)` where Triton's interpreter is off."""
    pool = ProcessPoolExecutor(1, mp_context=get_context('spawn'))
    with pool, pytest.MonkeyPatch.context() as patch:
        # Triton reads it when it is imported: the process starts without it.
        patch.delenv('TRITON_INTERPRET', raising=False)
        pool.submit(torch.set_num_threads, 1).result()
        patch.undo()
        yield lambda function, *arguments: pool.submit(function, *arguments).result()

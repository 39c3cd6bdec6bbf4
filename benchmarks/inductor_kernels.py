"""The kernels that torch.compile generates for a chain of operators, without a GPU.

Inductor believes in an H100 while it generates, on fake tensors; its own wrapper then
runs on CPU tensors that nobody reads, and what it launches is caught. Of several
configurations, among which a GPU's clock would choose, the first is taken.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import tempfile
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch._dynamo.device_interface as interface
import torch._inductor.compile_fx as compile_fx
from torch import Tensor
from torch._inductor.async_compile import AsyncCompile
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.graph import GraphLowering
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from triton import cdiv

from benchmarks.captured_launches import CapturedLaunch, capture
from benchmarks.hardware import H100

_PROPERTIES = types.SimpleNamespace(
    name=H100.name,
    major=9,
    minor=0,
    multi_processor_count=H100.sms,
    max_threads_per_multi_processor=H100.threads,
    regs_per_multiprocessor=H100.registers,
    warp_size=32,
    total_memory=80 << 30,
    gcnArchName='',
    shared_memory_per_block=48 << 10,
    shared_memory_per_block_optin=227 << 10,
    shared_memory_per_multiprocessor=H100.shared,
    L2_cache_size=50 << 20,
)


class _Generated(Exception):
    """Ends a compilation when its source is there."""


def _nothing(*args: object) -> contextlib.nullcontext:
    return contextlib.nullcontext()


@contextlib.contextmanager
def _as_if_cuda() -> Iterator[None]:
    """What Inductor asks of torch.cuda, answered for an H100."""
    cuda, answers = torch.cuda, interface.CudaInterface
    replaced: list[tuple[object, str, Any]] = [
        (cuda, 'is_available', lambda: True),
        (cuda, 'device_count', lambda: 1),
        (cuda, 'current_device', lambda: 0),
        (cuda, 'get_device_properties', lambda *_: _PROPERTIES),
        (cuda, 'get_device_capability', lambda *_: (9, 0)),
        (cuda, 'is_bf16_supported', lambda *_, **__: True),
        (cuda, 'get_rng_state', lambda *_: torch.zeros(16, dtype=torch.uint8)),
        (cuda, 'set_rng_state', lambda *_: None),
        (cuda, 'set_device', lambda *_: None),
        (cuda, 'synchronize', lambda *_: None),
        (cuda, '_lazy_init', lambda: None),
        (cuda, 'device', _nothing),
        (cuda, '_DeviceGuard', _nothing),
        (cuda, '_exchange_device', lambda *_: 0),
        (cuda, '_maybe_exchange_device', lambda *_: 0),
        (answers.Worker, 'get_device_properties', staticmethod(lambda *_: _PROPERTIES)),
        (answers.Worker, 'current_device', staticmethod(lambda: 0)),
        (answers, 'get_device_properties', staticmethod(lambda *_: _PROPERTIES)),
        (answers, 'get_compute_capability', staticmethod(lambda *_: 90)),
        (answers, 'is_available', staticmethod(lambda: True)),
        (answers, 'current_device', staticmethod(lambda: 0)),
        (answers, 'is_triton_capable', staticmethod(lambda *_: True)),
        (answers, 'raise_if_triton_unavailable', staticmethod(lambda *_: None)),
        (answers, 'device', _nothing),
    ]
    with contextlib.ExitStack() as stack:
        for place, name, value in replaced:
            stack.enter_context(mock.patch.object(place, name, value))
        yield


def _source(function: Callable, inputs: Sequence[Tensor]) -> str:
    """The module that Inductor writes for a function of these shapes on CUDA."""
    written: list[str] = []
    generate = GraphLowering.codegen

    def codegen(graph: GraphLowering) -> None:
        written.append(generate(graph)[0].value)
        raise _Generated

    with (
        _as_if_cuda(),
        capture(),
        FakeTensorMode(),
        mock.patch.object(GraphLowering, 'codegen', codegen),
        torch._inductor.config.patch(fx_graph_cache=False, compile_threads=1),
    ):
        fake = [
            torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device='cuda')
            for t in inputs
        ]
        graph = make_fx(function, decomposition_table=select_decomp_table())(*fake)
        with contextlib.suppress(Exception):
            compile_fx.compile_fx_inner(graph, fake)
    (source,) = written
    return source


class _Kernel:
    """A generated kernel as the wrapper sees it: `run` launches it."""

    _numbers = itertools.count()

    def __init__(self, folder: Path, name: str, source: str):
        path = folder / f'{name}_{next(self._numbers)}.py'
        # There is no driver; the one that compiles is active already.
        path.write_text(source.replace('triton_helpers.set_driver_to_gpu()', ''))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self._tuner = getattr(module, name)

    def run(self, *arguments: Tensor | int, stream: int) -> None:
        kernel, config = self._tuner.fn, self._tuner.configs[0]
        given = dict(zip(kernel.arg_names, arguments, strict=False))
        # The numbers that stand in the kernel; x, then y and z of the grid.
        grid = tuple(
            cdiv(given[f'{axis}numel'], config.kwargs.get(f'{axis.upper()}BLOCK', 1))
            for axis in 'xyz'
            if f'{axis}numel' in given
        )
        options = {'num_warps': config.num_warps, 'num_stages': config.num_stages}
        kernel[grid](*arguments, **config.kwargs, **options)


def launches(function: Callable, inputs: Sequence[Tensor]) -> list[CapturedLaunch]:
    """What the compiled function launches for these CPU tensors, as if on CUDA."""
    source = _source(function, inputs)
    with tempfile.TemporaryDirectory() as folder, _as_if_cuda(), capture() as found:

        def kernel(_, name: str, text: str, device_str: str = 'cuda') -> _Kernel:
            return _Kernel(Path(folder), name, text)

        with mock.patch.object(AsyncCompile, 'triton', kernel):
            scope: dict[str, Any] = {'__name__': 'generated'}
            exec(compile(source, 'generated', 'exec'), scope)
            scope['empty_strided_cuda'] = lambda shape, stride, dtype: (
                torch.empty_strided(shape, stride, dtype=dtype)
            )
            scope['copy_if_misaligned'] = lambda tensor: tensor
            scope['get_raw_stream'] = lambda device: 0
            scope['call'](list(inputs))
    return found

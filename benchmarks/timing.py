"""Device time from CUDA graphs, with a cold or a warm L2 cache."""

import contextlib
import gc
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

CACHES = ('cold', 'warm')
# Cold: between two uses of a buffer this many times the L2 cache passes through it.
_COLD_TIMES_L2 = 3


@dataclass(frozen=True)
class Quantiles:
    """Milliseconds per call: median, 20 % and 80 %."""

    p50: float
    p20: float
    p80: float

    @classmethod
    def of(cls, samples) -> 'Quantiles':
        p50, p20, p80 = np.quantile(np.asarray(samples, dtype=float), (0.5, 0.2, 0.8))
        return cls(float(p50), float(p20), float(p80))


def cold_sets(bytes_per_call: int, l2_bytes: int) -> int:
    """Sets of buffers to rotate through so that each is out of L2 when it returns."""
    return 1 + max(1, math.ceil(_COLD_TIMES_L2 * l2_bytes / bytes_per_call))


class GraphTimer:
    """Times a function by replaying a CUDA graph of many of its calls.

    `run` makes `calls` calls and returns their outputs, so that no two of them share
    memory. It is captured as often as fills `target_ms`; a sample is the time of one
    replay between two events over its calls. Must be used on a side stream, on which
    everything that `run` touches was created.
    """

    def __init__(self, target_ms: float = 1.0, replays: int = 50, max_calls: int = 512):
        self.target_ms = target_ms
        self.replays = replays
        self.max_calls = max_calls

    def __call__(self, run: Callable[[], object], calls: int) -> Quantiles:
        # Modules load and kernels compile outside of the capture, which forbids it.
        run()
        torch.cuda.synchronize()
        repeats = math.ceil(8 / calls)
        graph = _capture(run, repeats)
        round_ms = float(np.median(_replay(graph, 3))) / repeats
        wanted = math.ceil(self.target_ms / max(round_ms, 1e-4))
        wanted = min(wanted, max(1, self.max_calls // calls))
        if wanted > repeats:
            repeats = wanted
            graph = _capture(run, repeats)
        samples = _replay(graph, self.replays)
        return Quantiles.of([ms / (repeats * calls) for ms in samples])


def _capture(run: Callable[[], object], repeats: int) -> torch.cuda.CUDAGraph:
    # torch.cuda.graph would empty the allocator's cache, hundreds of times in a run.
    graph = torch.cuda.CUDAGraph()
    collecting = gc.isenabled()
    # A collection could destroy CUDA objects, which ends a capture with an error.
    gc.disable()
    try:
        graph.capture_begin()
        try:
            for _ in range(repeats):
                run()
        except BaseException:
            # Ending a capture that broke raises as well; the first error is the one
            # that says why.
            with contextlib.suppress(RuntimeError):
                graph.capture_end()
            raise
        graph.capture_end()
    finally:
        if collecting:
            gc.enable()
    return graph


def _replay(graph: torch.cuda.CUDAGraph, replays: int) -> list[float]:
    pairs = [
        (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
        for _ in range(replays)
    ]
    # The first replay uploads the graph; the second lets the host run ahead.
    graph.replay()
    graph.replay()
    for start, end in pairs:
        start.record()
        graph.replay()
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in pairs]


def peak_mib(run: Callable[[], object]) -> float:
    """MiB that a call allocates at its peak, beyond what is there before it."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20

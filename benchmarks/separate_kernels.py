"""What torch launches for a norm's neighbours, and for a frozen batch norm, by bytes.

Each operator is one kernel that streams maps; no code of theirs is executed here. The
counts are of passes over a map, as torch's sources have them: batch norm in eval mode
reads dy twice backward where its weight and bias are trained.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from benchmarks.captured_launches import CapturedLaunch
from benchmarks.cases import Case
from benchmarks.hardware import H100, Hardware
from benchmarks.launch_counts import LaunchCounts, TimeLine, Traffic

_THREADS, _BYTES = 256, 16 * 256


def streaming(
    kernel: str,
    size: float,
    reads: Sequence[str],
    writes: Sequence[str] = (),
    hardware: Hardware = H100,
) -> LaunchCounts:
    """A kernel that does nothing but read and write maps of `size` bytes."""
    whole = Traffic(size, size, size, size, passes=1, streamed=False)
    per_sm = hardware.threads // _THREADS
    programs = max(1, round(size / _BYTES))
    # A program's accesses wait for nothing but memory; as many as fit run at a time.
    return LaunchCounts(
        kernel=kernel,
        programs=min(programs, per_sm * hardware.sms),
        warps=_THREADS // 32,
        registers=32,
        spilled=0,
        per_sm=per_sm,
        instructions=0.0,
        pipes={},
        maps={(n, 'ld'): whole for n in reads} | {(n, 'st'): whole for n in writes},
        small=0.0,
        line=TimeLine(0.0, hardware.dram_latency, 0.0),
    )


def by_bytes(launch: CapturedLaunch, case: Case) -> LaunchCounts:
    """A launch of Inductor's as the maps it is given: `in_ptr…` and `out_ptr…`."""
    maps = [
        (name, str(value.data_ptr()))
        for name, value in launch.arguments.items()
        if isinstance(value, Tensor) and value.numel() == case.elements
    ]
    return streaming(
        launch.name,
        case.elements * case.itemsize,
        [place for name, place in maps if not name.startswith('out_ptr')],
        [place for name, place in maps if not name.startswith('in_ptr')],
    )


def add_and_relu(kind: str, size: float) -> list[LaunchCounts]:
    """What follows a norm in mmdet's blocks: `+=` and a ReLU in place."""
    launches = []
    if kind == 'residual_relu':
        launches.append(streaming('add', size, ['y', 'residual'], ['y']))
    if kind != 'plain':
        launches.append(streaming('relu', size, ['y'], ['y']))
    return launches


def relu_backward(kind: str, size: float) -> list[LaunchCounts]:
    """The gradient of the ReLU; that of the addition is the same tensor twice."""
    if kind == 'plain':
        return []
    return [streaming('relu_backward', size, ['dy', 'y'], ['dz'])]


def frozen_bn(kind: str, size: float, direction: str) -> list[LaunchCounts]:
    """Batch norm in eval mode whose weight and bias are trained, as mmdet's backbones
    have it beyond the frozen stages."""
    if direction == 'fwd':
        norm = streaming('batch_norm', size, ['x'], ['y'])
        return [norm, *add_and_relu(kind, size)]
    dz = 'dy' if kind == 'plain' else 'dz'
    return [
        *relu_backward(kind, size),
        streaming('batch_norm_backward_reduce', size, ['x', dz]),
        streaming('batch_norm_backward_elementwise', size, [dz], ['dx']),
    ]


def folded_bn(kind: str, size: float, direction: str) -> list[LaunchCounts]:
    """Batch norm folded into the convolution before it, for inference."""
    return add_and_relu(kind, size) if direction == 'fwd' else []


def no_norm(kind: str, size: float, direction: str) -> list[LaunchCounts]:
    """A layer without a norm: necks and heads of detectors with batch norm."""
    if direction == 'fwd':
        return add_and_relu(kind, size)
    return relu_backward(kind, size)

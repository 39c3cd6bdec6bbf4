"""The modelled time of an operation from the counts of its launches.

Nothing here is measured. A launch moves its bytes, issues its instructions and keeps
its pipes busy at the rates of `benchmarks/hardware.py`, whichever takes longest, wave
by wave of the programs that fit on the GPU; a wave takes at least as long as one
program does alone. The start of the first programs and the end of the last overlap
with nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.hardware import H100, Hardware
from benchmarks.launch_counts import LaunchCounts, Traffic


@dataclass(frozen=True)
class LaunchTime:
    """Seconds of one launch: each bound on its own, and all of it in `total`."""

    dram: float
    l2: float
    issue: float
    pipe: float
    latency: float
    total: float
    dram_bytes: float

    @property
    def bound(self) -> str:
        """The bound that takes longest."""
        names = ('dram', 'l2', 'issue', 'pipe', 'latency')
        return max(names, key=lambda name: getattr(self, name))


def found_again(before: float, between: float, now: float, kept: float) -> float:
    """Share of a tensor that a cache of `kept` bytes still has; it drops the oldest.

    The launch of its last use moved `before` bytes into the cache, in the same order as
    this one, which moves `now`; `between` came in between. At a share p of this launch
    the cache has taken before * (1 - p) + between + now * p bytes since then.
    """
    start, slope = before + between, now - before
    if slope == 0:
        return float(start <= kept)
    crossing = min(1.0, max(0.0, (kept - start) / slope))
    return crossing if slope > 0 else 1.0 - crossing


def _reads_again(counts: LaunchCounts, traffic: Traffic, hardware: Hardware) -> float:
    """DRAM bytes of passes over a map beyond the first, within one launch.

    The programs that run at the same time are at about the same place of their slices,
    so between two passes goes all that they read.
    """
    running = min(1.0, counts.per_sm * hardware.sms / counts.programs)
    kept = running * counts.cached <= hardware.kept
    return 0.0 if kept else (traffic.passes - 1) * traffic.distinct


def dram_bytes(
    launches: Sequence[LaunchCounts], hardware: Hardware = H100
) -> list[float]:
    """Bytes from and to DRAM of each launch of one operation, in order."""
    found = []
    last_use: dict[str, int] = {}
    cached = [counts.cached for counts in launches]
    for k, counts in enumerate(launches):
        total = 0.0
        for (name, kind), traffic in counts.maps.items():
            share = 0.0
            if kind == 'ld' and name in last_use:
                before = last_use[name]
                between = sum(cached[before + 1 : k])
                share = found_again(cached[before], between, cached[k], hardware.kept)
            total += traffic.distinct * (1 - share)
            if kind == 'ld':
                total += _reads_again(counts, traffic, hardware)
        found.append(total)
        last_use |= {
            n: k for (n, _), traffic in counts.maps.items() if not traffic.streamed
        }
    return found


def launch_time(
    counts: LaunchCounts, moved: float, hardware: Hardware = H100
) -> LaunchTime:
    """The time of one launch that moves `moved` bytes of DRAM, without its start."""
    line, grid = counts.line, counts.programs
    slots = counts.per_sm * hardware.sms
    # The SM with the most programs decides what is bound to an SM.
    uneven = math.ceil(grid / hardware.sms) * hardware.sms / grid
    busy = hardware.sms * hardware.clock
    l2 = sum(t.fetched for t in counts.maps.values()) + counts.small
    pipes = (n / hardware.pipes[name] for name, n in counts.pipes.items())
    rates = {
        'dram': moved / hardware.dram,
        'l2': l2 / hardware.l2,
        'issue': counts.instructions / (4 * busy) * uneven,
        'pipe': max(pipes, default=0.0) / busy * uneven,
    }
    slowest = max(rates.values())
    waves = grid / slots
    whole = math.floor(waves)
    rest = waves - whole
    ramp = line.before + line.after
    if waves <= 1:
        total = ramp + max(slowest, line.stream)
    else:
        total = ramp + whole * max(slowest / waves, line.whole)
        if rest > 1e-9:
            total += max(slowest * rest / waves, line.stream)
    latency = max(1.0, math.ceil(waves - 1e-9)) * line.whole
    return LaunchTime(**rates, latency=latency, total=total, dram_bytes=moved)


def operation_time(
    launches: Sequence[LaunchCounts], hardware: Hardware = H100
) -> tuple[float, list[LaunchTime]]:
    """Seconds from the first launch to the end of the last, and each launch's."""
    times = [
        launch_time(counts, moved, hardware)
        for counts, moved in zip(launches, dram_bytes(launches, hardware), strict=True)
    ]
    starts = hardware.launch + hardware.gap * (len(launches) - 1)
    return starts + sum(time.total for time in times), times


def copy_limit(units: float, size: float, hardware: Hardware = H100) -> float:
    """Seconds of one launch that moves `units` maps of `size` bytes at DRAM speed."""
    return hardware.launch + units * size / hardware.dram

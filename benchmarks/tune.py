"""Choose the limits of gn_det/ops/limits.py and write them there with their basis.

    python benchmarks/tune.py [FIELD …] [--dry-run]

One field after another takes the value with the least time of R-50's norms, both
layouts and directions, bf16 and fp32: measured where there is a CUDA device, else
modelled from counts (docs/benchmarking.md). A value stays unless another gains more
than `--gain` and slows no map by more than `--loss`.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from unittest import mock

if __name__ == '__main__':
    # Read when Triton is imported: the kernels are to be compiled.
    os.environ.pop('TRITON_INTERPRET', None)

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks.arguments import positive  # noqa: E402
from benchmarks.cases import Case, network_cases  # noqa: E402
from benchmarks.count_kernels import counted  # noqa: E402
from benchmarks.hardware import H100  # noqa: E402
from benchmarks.launch_model import operation_time  # noqa: E402
from benchmarks.results import Environment  # noqa: E402
from gn_det.ops import triton_launch  # noqa: E402
from gn_det.ops.limits import LIMITS, Limits  # noqa: E402

TABLE = ROOT / 'gn_det' / 'ops' / 'limits.py'
# Values that compile without spills; powers of two wherever a tile is made of them.
CANDIDATES: dict[str, tuple[int, ...]] = {
    'programs_per_sm': (1, 2, 3, 4),
    'split_fwd_bytes': (8192, 16384, 32768),
    'split_bwd': (2048, 4096, 8192),
    'piece_bytes': (64, 128, 256),
    'merge': (512, 1024, 2048, 4096),
    'on_chip_fwd': (8192, 16384),
    'on_chip_bwd': (8192, 16384),
    'on_chip_small': (4096, 8192, 16384),
    'on_chip_min': (1024, 2048, 4096),
}
Times = dict[tuple[Case, str], float]


@contextmanager
def _in_force(limits: Limits) -> Iterator[None]:
    with mock.patch.object(triton_launch, 'LIMITS', limits):
        triton_launch.clear_plans()
        yield
    triton_launch.clear_plans()


def modelled(case: Case) -> Iterator[tuple[str, float]]:
    """Direction and seconds, from counts."""
    for direction, launches in counted(case, 'gn_det'):
        yield direction, operation_time(launches)[0]


def measured(case: Case) -> Iterator[tuple[str, float]]:
    """Direction and seconds of a case on the current device, with a cold cache."""
    from benchmarks.bench_group_norm import CaseBenchmark
    from benchmarks.timing import GraphTimer

    device = torch.cuda.current_device()
    l2_bytes = torch.cuda.get_device_properties(device).L2_cache_size
    benchmark = CaseBenchmark(
        case,
        GraphTimer(0.3, 10),
        Environment.here(),
        directions=('fwd', 'bwd'),
        l2_bytes=l2_bytes,
    )
    with torch.cuda.stream(torch.cuda.Stream()):
        benchmark.run(['gn_det'])
    if benchmark.failures:
        raise RuntimeError(f'{case}: {"; ".join(benchmark.failures)}')
    for row in benchmark.rows:
        if (row['impl'], row['cache']) == ('gn_det', 'cold'):
            yield row['dir'], row['ms_p50'] / 1e3


def times(
    limits: Limits,
    cases: Sequence[Case],
    time_of: Callable[[Case], Iterator[tuple[str, float]]],
) -> Times:
    """Seconds of each case and direction with these limits."""
    with _in_force(limits):
        return {(case, d): t for case in cases for d, t in time_of(case)}


def total(found: Times) -> float:
    """Seconds of all norms of R-50, over all dtypes, layouts and directions."""
    return sum(case.count_r50 * t for (case, _), t in found.items())


def better(new: Times, old: Times, gain: float, loss: float) -> bool:
    """Whether all maps together gain and none loses, by more than these shares."""
    slowest = max(t / old[place] for place, t in new.items())
    return total(new) < (1 - gain) * total(old) and slowest <= 1 + loss


def choose(
    names: Sequence[str],
    cases: Sequence[Case],
    time_of: Callable[[Case], Iterator[tuple[str, float]]],
    gain: float,
    loss: float,
) -> Limits:
    """The limits after one round through the fields; says what it tries."""
    best, best_times = LIMITS, times(LIMITS, cases, time_of)
    print(f'today: {total(best_times) * 1e3:.3f} ms', flush=True)
    for name in names:
        for value in CANDIDATES[name]:
            if value == getattr(best, name):
                continue
            tried = replace(best, **{name: value})
            found = times(tried, cases, time_of)
            taken = better(found, best_times, gain, loss)
            worst = max(t / best_times[place] for place, t in found.items())
            print(
                f'{name} = {value}: {total(found) * 1e3:.3f} ms, slowest map '
                f'{worst:.2f} x{", taken" if taken else ""}',
                flush=True,
            )
            if taken:
                best, best_times = tried, found
    return best


def written(text: str, limits: Limits, basis: str) -> str:
    """The text of the table with these values and what they rest on."""
    text, count = re.subn(r"(?m)^BASIS = '.*'$", f"BASIS = '{basis}'", text)
    for field in fields(limits):
        value = getattr(limits, field.name)
        text, found = re.subn(
            rf'(?m)^(    {field.name}: int = )([\d_]+)$',
            lambda line, value=value: (
                line[0] if int(line[2]) == value else f'{line[1]}{value}'
            ),
            text,
        )
        count += found
    if count != 1 + len(fields(limits)):
        raise SystemExit(f'error: {TABLE} has not one line for each limit and BASIS')
    return text


def basis() -> str:
    """What values chosen here rest on, in a line."""
    here = Environment.here()
    if torch.cuda.is_available():
        how = f'measured: {here.gpu}, torch {here.torch}, Triton {here.triton}'
    else:
        how = f'modelled: {H100.name} by counts of the PTX of Triton {here.triton}'
    return f'{how}, {here.date}'


def main(argv: Sequence[str] | None = None) -> int:
    """0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('fields', nargs='*', choices=[*CANDIDATES, []])
    parser.add_argument('--gain', type=float, default=0.01)
    parser.add_argument('--loss', type=float, default=0.02)
    parser.add_argument('--dry-run', action='store_true', help='write nothing')
    parser.add_argument('--maps', type=positive, help='the smallest so many maps only')
    args = parser.parse_args(argv)
    cases = [
        case
        for dtype in ('bf16', 'fp32')
        for layout in ('nhwc', 'nchw')
        for case in network_cases(dtype, layout, ['r50'])[-(args.maps or 0) :]
    ]
    time_of = measured if torch.cuda.is_available() else modelled
    names = args.fields or list(CANDIDATES)
    limits = choose(names, cases, time_of, args.gain, args.loss)
    text = written(TABLE.read_text(), limits, basis())
    if args.dry_run:
        print(basis(), limits)
        return 0
    TABLE.write_text(text)
    print(f'wrote {TABLE}')
    return 0


if __name__ == '__main__':
    sys.exit(main())

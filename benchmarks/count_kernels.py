"""Counts what the kernels execute, and models their times, without a GPU.

    python benchmarks/count_kernels.py [--dtype …] [--layout …] [--impl …]

Every norm of Mask R-CNN with R-50 and R-101 at batch 2, 800 x 1344: the launcher's own
launches, compiled for sm_90 and executed by the emulator of tests/ptx, a sample of each
grid's CTAs. Times are modelled (docs/benchmarking.md says how), never measured.
Rows of other implementations and labels that a file has already are kept.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

if __name__ == '__main__':
    # Read when Triton is imported: the kernels are to be compiled.
    os.environ.pop('TRITON_INTERPRET', None)

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.arguments import output_folder, positive  # noqa: E402
from benchmarks.bytes_model import units  # noqa: E402
from benchmarks.cases import Case, network_cases  # noqa: E402
from benchmarks.hardware import H100  # noqa: E402
from benchmarks.launch_counts import LaunchCounts, count  # noqa: E402
from benchmarks.launch_model import copy_limit, operation_time  # noqa: E402
from benchmarks.launched_by import FUSED, NORM_ONLY, Uncounted  # noqa: E402
from benchmarks.results import (  # noqa: E402
    COUNTS_COLUMNS,
    RESULTS,
    Environment,
    counts_name,
    read_rows,
    rounded,
    write_rows,
)
from benchmarks.separate_kernels import (  # noqa: E402
    add_and_relu,
    by_bytes,
    folded_bn,
    frozen_bn,
    no_norm,
    relu_backward,
)
from tests.ptx.parse import Unsupported  # noqa: E402

DIRECTIONS = ('fwd', 'bwd')
BY_BYTES = {'frozen_bn': frozen_bn, 'folded_bn': folded_bn, 'no_norm': no_norm}
IMPLS = (*FUSED, *NORM_ONLY, *BY_BYTES)


def counted(case: Case, impl: str) -> Iterator[tuple[str, list[LaunchCounts]]]:
    """Direction and launches of a case by one implementation."""
    size = case.elements * case.itemsize
    if impl in BY_BYTES:
        for direction in DIRECTIONS:
            yield direction, BY_BYTES[impl](case.kind, size, direction)
        return
    found = {**FUSED, **NORM_ONLY}[impl](case)
    for direction in DIRECTIONS:
        if impl == 'inductor':
            yield direction, [by_bytes(launch, case) for launch in found[direction]]
            continue
        launches = [count(launch, case.elements) for launch in found[direction]]
        if impl in NORM_ONLY:
            # Torch adds and rectifies.
            if direction == 'fwd':
                launches += add_and_relu(case.kind, size)
            else:
                launches = [*relu_backward(case.kind, size), *launches]
        yield direction, launches


def row_of(
    case: Case, impl: str, label: str, direction: str, launches: Sequence[LaunchCounts]
) -> dict:
    """A row of the CSV; the registers are the most, the occupancy the least, of any."""
    size = case.elements * case.itemsize
    row = {
        'impl': impl,
        'label': label,
        'dir': direction,
        'relu': int(case.relu),
        'residual': int(case.residual),
        **{name: getattr(case, name) for name in ('dtype', 'layout', *'NCHWG')},
        'count_r50': case.count_r50,
        'count_r101': case.count_r101,
        'launches': len(launches),
    }
    limit = copy_limit(units(direction, case.kind, case.itemsize), size)
    row['us_copy'] = rounded(limit * 1e6)
    if not launches:
        return row | {'units': 0, 'dram_units': 0, 'us': 0}
    seconds, times = operation_time(launches)
    maps = [t for launch in launches for t in launch.maps.values()]
    asked = sum(t.asked for t in maps)
    row |= {
        'units': rounded(sum(t.distinct * t.passes for t in maps) / size),
        'dram_units': rounded(sum(t.dram_bytes for t in times) / size),
        'sectors_over_ideal': rounded(sum(t.requested for t in maps) / asked),
        'us': rounded(seconds * 1e6),
        'frac_of_copy': rounded(limit / seconds),
    }
    if impl in BY_BYTES or impl == 'inductor':
        return row
    issued = sum(launch.instructions for launch in launches)
    return row | {
        'instructions_per_element': rounded(issued * 32 / case.elements),
        'registers': max(launch.registers for launch in launches),
        'spilled': max(launch.spilled for launch in launches),
        'occupancy': rounded(min(launch.occupancy for launch in launches)),
        'kernels': '; '.join(
            f'{launch.kernel} {launch.programs}x{launch.warps * 32} '
            f'r{launch.registers} {time.total * 1e6:.1f}us {time.bound}'
            for launch, time in zip(launches, times, strict=True)
        ),
    }


def count_all(
    cases: Sequence[Case], impls: Sequence[str], label: str
) -> Iterator[dict]:
    """Rows of all cases; what an implementation cannot do is said and left out."""
    here = asdict(Environment.here())
    where = {name: here[name] for name in ('torch', 'triton', 'commit', 'date')}
    for case in cases:
        for impl in impls:
            if impl in NORM_ONLY and case.layout != 'nchw':
                continue
            try:
                for direction, launches in counted(case, impl):
                    yield row_of(case, impl, label, direction, launches) | where
            except (ModuleNotFoundError, Uncounted, Unsupported) as error:
                print(f'{impl}, {case}: {error}', file=sys.stderr)


def _key(row: dict) -> tuple[str, ...]:
    names = ('impl', 'label', 'dtype', 'layout', 'dir', 'relu', 'residual', *'NCHW')
    return tuple(str(row[name]) for name in names)


def main(argv: Sequence[str] | None = None) -> int:
    """0; 2 for arguments that make no sense."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--dtype', nargs='+', choices=['bf16', 'fp32', 'fp16'])
    parser.add_argument('--layout', nargs='+', choices=['nhwc', 'nchw'])
    parser.add_argument('--impl', nargs='+', choices=IMPLS, default=list(IMPLS))
    parser.add_argument(
        '--label', default='now', help="'now', or a name for other sources of the op"
    )
    parser.add_argument('--maps', type=positive, help='the smallest so many maps only')
    parser.add_argument('--out', type=output_folder, default=RESULTS)
    args = parser.parse_args(argv)
    here = Environment.here()
    cases = [
        case
        for dtype in args.dtype or ('bf16', 'fp32')
        for layout in args.layout or ('nhwc', 'nchw')
        for case in network_cases(dtype, layout)[-(args.maps or 0) :]
    ]
    partial = '_partial' if args.maps else ''
    path = args.out / counts_name(H100.name, here, partial)
    rows = {_key(row): row for row in read_rows(path)} if path.is_file() else {}
    for row in count_all(cases, args.impl, args.label):
        rows[_key(row)] = row
        print(
            f'{row["impl"]:10}{row["dtype"]} {row["layout"]} {row["dir"]} '
            f'{row["N"]}x{row["C"]}x{row["H"]}x{row["W"]}: {row["us"]} us, modelled',
            flush=True,
        )
        write_rows(path, COUNTS_COLUMNS, rows.values())
    print(path)
    return 0


if __name__ == '__main__':
    sys.exit(main())

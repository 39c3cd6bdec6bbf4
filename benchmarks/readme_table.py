"""Write README's table of times and memory from the CSV files.

    python benchmarks/readme_table.py [--check]

Times are those of R-50, batch 2, bf16, channels-last, of the newest GPU run; where
there is none the cells say so. `--check` writes nothing and fails if README differs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import marked  # noqa: E402
from benchmarks.results import DETECTOR, MEMORY, RESULTS, read_rows  # noqa: E402

README = ROOT / 'README.md'
COLUMNS = {
    'stock_gn': 'stock GN',
    'fused_gn': 'fused GN',
    'fused_gn_recompute': 'fused, recomputing',
    'frozen_bn_4conv1fc': 'frozen BN',
}
_MISSING = 'not yet measured'


def _newest(results: Path, pattern: str) -> list[dict[str, str]]:
    """The rows of the file whose measurements are the latest."""
    found = [read_rows(path) for path in sorted(results.glob(pattern))]
    found = [rows for rows in found if rows and rows[0].get('gpu') != 'cpu']
    return max(found, key=lambda rows: rows[-1]['date'], default=[])


def table(results: Path = RESULTS) -> str:
    """The lines between the marks."""
    times = _newest(results, f'{DETECTOR}_r50_bf16_nhwc_*.csv')
    memory = _newest(results, f'{MEMORY}_*.csv')
    rows = []
    for mode, name in (('train', 'train step'), ('infer', 'inference')):
        ms = {
            row['variant']: f'{float(row["ms_p50"]):.1f}'
            for row in times
            if (row['mode'], row['batch'], row['status']) == (mode, '2', 'ok')
        }
        cells = [ms.get(variant, _MISSING) for variant in COLUMNS]
        rows.append([f'{name}, bf16, ms', *cells])
    for dtype, name in (('bf16', 'bf16 AMP'), ('fp32', 'fp32')):
        mib = {
            row['variant']: float(row['total_mib'])
            for row in memory
            if (row['model'], row['dtype'], row['frozen_stages'])
            == ('r50', dtype, '-1')
        }
        cells = [f'{mib[variant] / 1024:.2f}' for variant in COLUMNS]
        rows.append([f'kept for backward, {name}, GiB', *cells])
    columns = ['Mask R-CNN R-50-FPN, 800 × 1333, batch 2', *COLUMNS.values()]
    lines = marked.table(columns, rows)
    if times:
        row = times[-1]
        lines += (
            f'\n\nTimes: *measured*, {row["gpu"]}, torch {row["torch"]}, Triton '
            f'{row["triton"]}, {row["date"]}, `make gpu`.'
        )
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """0, or 1 where `--check` finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true')
    args = parser.parse_args(argv)
    return marked.write(README, {'times': table()}, args.check)


if __name__ == '__main__':
    sys.exit(main())

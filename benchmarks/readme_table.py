"""Write README's table of times and memory from the CSV files.

    python benchmarks/readme_table.py [--check]

Times are those of R-50, batch 2, bf16, channels-last, of the newest GPU run; where
there is none the cells say so. `--check` writes nothing and fails if README differs.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.results import DETECTOR, MEMORY, RESULTS, read_rows  # noqa: E402

README = ROOT / 'README.md'
BEGIN, END = '<!-- times: benchmarks/readme_table.py -->', '<!-- end of times -->'
COLUMNS = {
    'stock_gn': 'stock GN',
    'fused_gn': 'fused GN',
    'fused_gn_recompute': 'fused, recomputing',
    'frozen_bn_4conv1fc': 'frozen BN',
}
_MISSING = 'not yet measured'


def _line(cells: Sequence[str]) -> str:
    return f'| {" | ".join(cells)} |'


def _newest(results: Path, pattern: str) -> list[dict[str, str]]:
    """The rows of the file whose measurements are the latest."""
    found = [read_rows(path) for path in sorted(results.glob(pattern))]
    found = [rows for rows in found if rows and rows[0].get('gpu') != 'cpu']
    return max(found, key=lambda rows: rows[-1]['date'], default=[])


def table(results: Path = RESULTS) -> str:
    """The lines between the marks."""
    times = _newest(results, f'{DETECTOR}_r50_bf16_nhwc_*.csv')
    memory = _newest(results, f'{MEMORY}_*.csv')
    lines = [
        _line(['Mask R-CNN R-50-FPN, 800 × 1333, batch 2', *COLUMNS.values()]),
        _line(['---'] * (1 + len(COLUMNS))),
    ]
    for mode, name in (('train', 'train step'), ('infer', 'inference')):
        ms = {
            row['variant']: f'{float(row["ms_p50"]):.1f}'
            for row in times
            if (row['mode'], row['batch'], row['status']) == (mode, '2', 'ok')
        }
        cells = [ms.get(variant, _MISSING) for variant in COLUMNS]
        lines.append(_line([f'{name}, bf16, ms', *cells]))
    for dtype, name in (('bf16', 'bf16 AMP'), ('fp32', 'fp32')):
        mib = {
            row['variant']: float(row['total_mib'])
            for row in memory
            if (row['model'], row['dtype'], row['frozen_stages'])
            == ('r50', dtype, '-1')
        }
        cells = [f'{mib[variant] / 1024:.2f}' for variant in COLUMNS]
        lines.append(_line([f'kept for backward, {name}, GiB', *cells]))
    if times:
        row = times[-1]
        lines += [
            '',
            f'Times: *measured*, {row["gpu"]}, torch {row["torch"]}, Triton '
            f'{row["triton"]}, {row["date"]}, `make gpu`.',
        ]
    return '\n'.join(lines)


def replaced(text: str, lines: str) -> str:
    """A README with these lines between its marks."""
    pattern = re.compile(f'{re.escape(BEGIN)}\n.*?{re.escape(END)}', re.S)
    new, count = pattern.subn(lambda _: f'{BEGIN}\n{lines}\n{END}', text)
    if count != 1:
        raise SystemExit(f'README.md: expected the marks {BEGIN} and {END} once')
    return new


def main(argv: Sequence[str] | None = None) -> int:
    """0, or 1 where `--check` finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true')
    args = parser.parse_args(argv)
    text = README.read_text(encoding='utf-8')
    new = replaced(text, table())
    if args.check:
        return int(new != text)
    README.write_text(new, encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())

"""Write the tables of modelled times in docs/benchmarking.md from the CSV.

python benchmarks/counts_page.py
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.bytes_model import units  # noqa: E402
from benchmarks.cases import DTYPES, network_cases  # noqa: E402
from benchmarks.count_totals import totals  # noqa: E402
from benchmarks.launch_model import copy_limit  # noqa: E402
from benchmarks.results import COUNTS, RESULTS, read_rows  # noqa: E402
from benchmarks.totals import row_kind  # noqa: E402

PAGE = ROOT / 'docs' / 'benchmarking.md'
NAMES = {'fwd': 'forward', 'bwd': 'backward'}
PEERS = {'inductor': 'torch.compile'}
Row = dict[str, str]


def _line(cells: Iterable[object]) -> str:
    return f'| {" | ".join(map(str, cells))} |'


def _head(cells: Sequence[str]) -> list[str]:
    return [_line(cells), _line(['---'] * len(cells))]


def totals_table(rows: Sequence[Row]) -> str:
    """Milliseconds of all norms of a network."""
    lines = _head(
        ['all norms, ms', 'before', 'now', 'copy', 'now, % of copy', *PEERS.values()]
    )
    for model in ('r50', 'r101'):
        found = totals(rows, model)
        for dtype in ('bf16', 'fp32'):
            for layout in ('nhwc', 'nchw'):
                for direction, name in NAMES.items():
                    place = dtype, layout, direction
                    now = found.get(('gn_det', 'now', *place))
                    limit = _copy_ms(model, *place)
                    cells = [
                        _ms(found.get(('gn_det', 'before', *place))),
                        _ms(now),
                        _ms(limit),
                        '–' if now is None else f'{100 * limit / now:.0f}',
                        *(_ms(found.get((peer, 'now', *place))) for peer in PEERS),
                    ]
                    what = f'{model.upper()[:1]}-{model[1:]}, {dtype}, {layout}, {name}'
                    lines.append(_line([what, *cells]))
    return '\n'.join(lines)


def _ms(value: float | None) -> str:
    return '–' if value is None else f'{value:.2f}'


def _copy_ms(model: str, dtype: str, layout: str, direction: str) -> float:
    itemsize = DTYPES[dtype].itemsize
    return (
        sum(
            getattr(case, f'count_{model}')
            * copy_limit(
                units(direction, case.kind, itemsize), case.elements * itemsize
            )
            for case in network_cases(dtype, layout)
        )
        * 1e3
    )


def layers_table(rows: Sequence[Row], dtype: str) -> str:
    """Microseconds before and now of each map, and the share of the copy's speed."""
    columns = [(layout, d) for layout in ('nhwc', 'nchw') for d in NAMES]
    lines = _head(
        [f'{dtype}, µs (% of copy)', *(f'{lay}, {NAMES[d]}' for lay, d in columns)]
    )
    found = {
        (_place(row), row['layout'], row['dir'], row['label']): row
        for row in rows
        if row['impl'] == 'gn_det' and row['dtype'] == dtype
    }
    for case in network_cases(dtype, 'nhwc'):
        place = (case.N, case.C, case.H, case.W, case.kind)
        cells = []
        for layout, direction in columns:
            both = [
                found.get((place, layout, direction, label))
                for label in ('before', 'now')
            ]
            cells.append(' → '.join(map(_time, both)))
        lines.append(_line([case, *cells]))
    return '\n'.join(lines)


def _place(row: Row) -> tuple:
    return (*(int(row[name]) for name in 'NCHW'), row_kind(row))


def _time(row: Row | None) -> str:
    if row is None:
        return '–'
    return f'{float(row["us"]):.1f} ({100 * float(row["frac_of_copy"]):.0f})'


def frozen_bn_table(rows: Sequence[Row]) -> str:
    """Fused Group Norm and frozen batch norm on the norms of R-50's backbone, bf16."""
    lines = _head(
        [
            'R-50, bf16, ms',
            'fused GN, nhwc',
            'fused GN, nchw',
            'frozen BN',
            'GN faster',
        ]
    )
    cases = (
        ('backbone, forward', 'backbone', 'fwd', 'frozen_bn'),
        ('backbone, backward, all stages', 'backbone', 'bwd', 'frozen_bn'),
        (
            'backbone, backward, stem and res2 frozen',
            'trained backbone',
            'bwd',
            'frozen_bn',
        ),
        ('backbone, inference, folded into weights', 'backbone', 'fwd', 'folded_bn'),
        ('neck and heads, forward', 'rest', 'fwd', 'no_norm'),
        ('neck and heads, backward', 'rest', 'bwd', 'no_norm'),
    )
    for name, part, direction, other in cases:
        found = totals(rows, 'r50', part)
        ours = [
            found.get(('gn_det', 'now', 'bf16', layout, direction))
            for layout in ('nhwc', 'nchw')
        ]
        theirs = found.get((other, 'now', 'bf16', 'nhwc', direction))
        verdict = '–'
        if theirs is not None and None not in ours:
            faster = [time < theirs for time in ours if time is not None]
            verdict = 'yes' if all(faster) else 'no' if not any(faster) else 'in part'
        lines.append(_line([name, *map(_ms, ours), _ms(theirs), verdict]))
    return '\n'.join(lines)


TABLES: dict[str, Callable[[Sequence[Row]], str]] = {
    'modelled totals': totals_table,
    'modelled layers, bf16': lambda rows: layers_table(rows, 'bf16'),
    'modelled layers, fp32': lambda rows: layers_table(rows, 'fp32'),
    'modelled frozen BN': frozen_bn_table,
}


def replaced(text: str, name: str, table: str) -> str:
    """A page with this table between its marks."""
    mark = f'<!-- {name}: benchmarks/counts_page.py -->'
    end = f'<!-- end of {name} -->'
    pattern = re.compile(f'{re.escape(mark)}\n.*?{re.escape(end)}', re.S)
    new, count = pattern.subn(lambda _: f'{mark}\n{table}\n{end}', text)
    if count != 1:
        raise SystemExit(f'{PAGE.name}: expected the mark {mark} once')
    return new


def page(text: str, rows: Sequence[Row]) -> str:
    """The page with all tables as these rows give them."""
    for name, table in TABLES.items():
        text = replaced(text, name, table(rows))
    return text


def main() -> int:
    """Writes the page from the newest file of counts."""
    (path,) = (
        p for p in RESULTS.glob(f'{COUNTS}_*.csv') if not p.stem.endswith('_partial')
    )
    text = page(PAGE.read_text(encoding='utf-8'), read_rows(path))
    PAGE.write_text(text, encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())

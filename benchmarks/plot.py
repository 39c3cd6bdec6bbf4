"""Figures from the CSV files of the benchmarks, and from nothing else.

    python benchmarks/plot.py [CSV ...]

Without names it takes every CSV of benchmarks/results but those of quick and partial
runs. One PNG per figure, named like its CSV.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.arguments import output_folder
from benchmarks.plot_counts import counts_figure
from benchmarks.plot_detector import detector_figure, memory_figure
from benchmarks.results import (
    COUNTS,
    DETECTOR,
    HOST,
    MEMORY,
    RESULTS,
    ROOT,
    SPEED,
    read_rows,
)
from benchmarks.shapes import MODELS
from benchmarks.totals import Total, network_totals, row_kind

FIGURES = ROOT / 'docs' / 'figures'
_COLOURS = {
    'gn_det': '#1b6ca8',
    'torch': '#b0b0b0',
    'torch_autocast': '#7f7f7f',
    'torch_compile': '#e0a030',
}
_LIMIT = 'copy'
_DIRECTION_NAMES = {'fwd': 'forward', 'bwd': 'backward', 'fwd_bwd': 'both'}

Row = dict[str, str]


def find(folder: Path = RESULTS) -> list[Path]:
    """The CSV files of whole runs in a folder."""
    names = (SPEED, HOST, MEMORY, DETECTOR, COUNTS)
    found = [path for name in names for path in folder.glob(f'{name}_*.csv')]
    parts = ('_quick', '_partial')
    return sorted(path for path in found if not path.stem.endswith(parts))


def _bars(
    axes: Axes,
    names: Sequence[str],
    heights: dict[str, list[float | None]],
    markers: list[float | None],
    marker_name: str,
) -> None:
    """Groups of bars by implementation, with a marker over each group."""
    width = 0.8 / max(1, len(heights))
    for number, (impl, values) in enumerate(heights.items()):
        places = [i - 0.4 + (number + 0.5) * width for i in range(len(names))]
        present = [(p, v) for p, v in zip(places, values, strict=True) if v is not None]
        axes.bar(
            [p for p, _ in present],
            [v for _, v in present],
            width,
            label=impl,
            color=_COLOURS.get(impl),
        )
    limits = [(i, m) for i, m in enumerate(markers) if m is not None]
    axes.hlines(
        [m for _, m in limits],
        [i - 0.45 for i, _ in limits],
        [i + 0.45 for i, _ in limits],
        colors='black',
        label=marker_name,
    )
    axes.set_xticks(range(len(names)), names, rotation=45, ha='right', fontsize=7)
    axes.set_xlim(-0.6, len(names) - 0.4)
    # Above the axes, where no bar is.
    axes.legend(
        fontsize=7, ncols=5, loc='lower right', bbox_to_anchor=(1, 1), frameon=False
    )
    axes.grid(axis='y', linewidth=0.3)


def shapes_figure(rows: Sequence[Row]) -> Figure:
    """Milliseconds of each map, cold cache, over the copy of the same bytes."""
    cold = [row for row in rows if row['cache'] == 'cold']
    directions = [d for d in ('fwd', 'bwd') if any(r['dir'] == d for r in cold)]
    figure = Figure(figsize=(12, 4 * len(directions)), layout='constrained')
    for number, direction in enumerate(directions, 1):
        here = [row for row in cold if row['dir'] == direction]
        ms = {(_map_name(row), row['impl']): float(row['ms_p50']) for row in here}
        names = list(dict.fromkeys(_map_name(row) for row in here))
        impls = [i for i in _COLOURS if any(impl == i for _, impl in ms)]
        axes = figure.add_subplot(len(directions), 1, number)
        _bars(
            axes,
            names,
            {impl: [ms.get((name, impl)) for name in names] for impl in impls},
            [ms.get((name, _LIMIT)) for name in names],
            'copy of the same bytes',
        )
        axes.set_yscale('log')
        axes.set_ylabel(f'{_DIRECTION_NAMES[direction]}, ms')
    figure.suptitle(_title(rows) + ', cold L2')
    return figure


def totals_figure(rows: Sequence[Row]) -> Figure | None:
    """All norms of a network; None when no total is complete."""
    totals = {
        (t.model, t.dir, t.impl): t
        for model in MODELS
        for t in network_totals(rows, model)
        if t.complete and t.cache == 'cold'
    }
    groups = list(dict.fromkeys((model, direction) for model, direction, _ in totals))
    if not groups:
        return None
    impls = [i for i in _COLOURS if any(impl == i for _, _, impl in totals)]

    def ms(model: str, direction: str, impl: str) -> float | None:
        total: Total | None = totals.get((model, direction, impl))
        return total and total.ms

    figure = Figure(figsize=(8, 4), layout='constrained')
    axes = figure.add_subplot()
    _bars(
        axes,
        [f'{model} {_DIRECTION_NAMES[direction]}' for model, direction in groups],
        {impl: [ms(*group, impl) for group in groups] for impl in impls},
        [ms(*group, _LIMIT) for group in groups],
        'copy of the same bytes',
    )
    axes.set_ylabel('all norms of one step, ms')
    figure.suptitle(_title(rows) + ', cold L2')
    return figure


def host_figure(rows: Sequence[Row]) -> Figure:
    """Host microseconds of a call, over 1.5 times torch's."""
    figure = Figure(figsize=(10, 4), layout='constrained')
    for number, direction in enumerate(('fwd', 'bwd'), 1):
        us = {
            (_host_name(row), row['impl']): float(row['us_p50'])
            for row in rows
            if row['dir'] == direction
        }
        names = list(dict.fromkeys(name for name, _ in us))
        axes = figure.add_subplot(1, 2, number)
        _bars(
            axes,
            names,
            {i: [us.get((n, i)) for n in names] for i in ('gn_det', 'torch')},
            [1.5 * us[name, 'torch'] for name in names],
            '1.5 × torch',
        )
        axes.set_ylabel(f'{_DIRECTION_NAMES[direction]}, host µs a call')
    row = rows[0]
    figure.suptitle(f'{row["scope"]}, {row["gpu"]}, torch {row["torch"]}')
    return figure


def _map_name(row: Row) -> str:
    size = f'{row["N"]}×{row["C"]}@{row["H"]}×{row["W"]}'
    return f'{size}\n{row_kind(row)}'


def _host_name(row: Row) -> str:
    return f'{row["regime"]} {row["layout"]}\n{row_kind(row)}'


def _title(rows: Sequence[Row]) -> str:
    row = rows[0]
    return (
        f'{row["dtype"]} {row["layout"]}, {row["gpu"]}, torch {row["torch"]}, '
        f'triton {row["triton"]}, {row["date"]}'
    )


def draw(path: Path, out: Path) -> list[Path]:
    """Draws the figures of one CSV file; the PNG files written."""
    rows = read_rows(path)
    if not rows:
        raise ValueError(f'{path} has no rows')
    if path.name.startswith(HOST):
        figures = {path.stem: host_figure(rows)}
    elif path.name.startswith(MEMORY):
        figures = {path.stem: memory_figure(rows)}
    elif path.name.startswith(COUNTS):
        figures = {path.stem: counts_figure(rows)}
    elif path.name.startswith(DETECTOR):
        figures = {path.stem: detector_figure(rows)}
    else:
        figures = {
            f'{path.stem}_shapes': shapes_figure(rows),
            f'{path.stem}_totals': totals_figure(rows),
        }
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in figures.items():
        if figure is not None:
            written.append(out / f'{name}.png')
            figure.savefig(written[-1], dpi=120)
    return written


def main(argv: Sequence[str] | None = None) -> int:
    """0 when figures were drawn, 2 when there is nothing to draw from."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('csv', nargs='*', type=Path, help='CSV files of a benchmark')
    parser.add_argument(
        '--out', type=output_folder, default=FIGURES, help='folder of the PNG'
    )
    args = parser.parse_args(argv)
    paths = args.csv or find()
    missing = [path for path in paths if not path.is_file()]
    if missing or not paths:
        what = f'{missing[0]} does not exist' if missing else f'No CSV in {RESULTS}'
        print(
            f'{what}; run a script of benchmarks/ that writes one first.',
            file=sys.stderr,
        )
        return 2
    for path in paths:
        try:
            written = draw(path, args.out)
        except (KeyError, ValueError) as error:
            print(f'{path} is not a CSV of these benchmarks: {error}', file=sys.stderr)
            return 2
        for figure in written:
            print(f'wrote {figure}')
    return 0


if __name__ == '__main__':
    sys.exit(main())

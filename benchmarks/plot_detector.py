"""Figures of the detectors' CSV files: memory by part, speed and memory by batch."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

Row = dict[str, str]

_PART_COLOURS = {
    'backbone': '#1b6ca8',
    'neck': '#67a9cf',
    'rpn_head': '#e0a030',
    'box_head': '#7f7f7f',
    'mask_head': '#c7c7c7',
}
_VARIANT_COLOURS = {
    'stock_gn': '#7f7f7f',
    'fused_gn': '#1b6ca8',
    'fused_gn_recompute': '#67a9cf',
    'frozen_bn_4conv1fc': '#e0a030',
    'frozen_bn_2fc': '#f0d090',
}
_BASELINE = 'frozen_bn_4conv1fc'
_AIM = 0.75


def memory_figure(rows: Sequence[Row]) -> Figure:
    """GiB kept for backward by part, over 0.75 times frozen BN's."""
    dtypes = list(dict.fromkeys(row['dtype'] for row in rows))
    columns = list(dict.fromkeys((row['model'], row['frozen_stages']) for row in rows))
    size = (2.5 + 3.2 * len(columns), 3.2 * len(dtypes) + 0.6)
    figure = Figure(figsize=size, layout='constrained')
    grid = figure.subplots(len(dtypes), len(columns), squeeze=False, sharex=True)
    for line, dtype in zip(grid, dtypes, strict=True):
        for axes, (model, frozen) in zip(line, columns, strict=True):
            here = [
                row
                for row in rows
                if (row['dtype'], row['model'], row['frozen_stages'])
                == (dtype, model, frozen)
            ]
            _stack(axes, here)
            axes.set_title(f'{model} {dtype}, frozen_stages={frozen}', fontsize=9)
            if axes is not line[0]:
                axes.set_yticklabels([])
    for axes in grid[-1]:
        axes.set_xlabel('GiB kept for backward', fontsize=8)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=6, loc='outside lower center', fontsize=8)
    row = rows[0]
    figure.suptitle(
        f'counted, {row["batch"]} × 3 × {row["height"]} × {row["width"]}, '
        f'torch {row["torch"]}, {row["date"]}'
    )
    return figure


def _stack(axes: Axes, rows: Sequence[Row]) -> None:
    left = [0.0] * len(rows)
    for part, colour in _PART_COLOURS.items():
        widths = [float(row[f'{part}_mib']) / 1024 for row in rows]
        axes.barh(range(len(rows)), widths, left=left, color=colour, label=part)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    base = next(float(row['total_mib']) for row in rows if row['variant'] == _BASELINE)
    axes.axvline(
        _AIM * base / 1024,
        color='black',
        linestyle='--',
        linewidth=0.8,
        label=f'{_AIM} × frozen BN, 4conv1fc',
    )
    axes.set_yticks(range(len(rows)), [row['variant'] for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis='x', linewidth=0.3)


def detector_figure(rows: Sequence[Row]) -> Figure:
    """Images a second in training and inference, and GiB at the peak of training."""
    panels: list[tuple[str, str, Callable[[Row], float | None]]] = [
        ('train', 'training, images/s', lambda row: _number(row, 'images_per_s')),
        ('infer', 'inference, images/s', lambda row: _number(row, 'images_per_s')),
        ('train', 'training, peak GiB', _peak_gib),
    ]
    shown = [
        panel
        for panel in panels
        if any(row['mode'] == panel[0] and panel[2](row) is not None for row in rows)
    ]
    if not shown:
        raise ValueError('no row has a time')
    figure = Figure(figsize=(5 * len(shown), 4), layout='constrained')
    for number, (mode, label, value) in enumerate(shown, 1):
        axes = figure.add_subplot(1, len(shown), number)
        _by_batch(axes, [row for row in rows if row['mode'] == mode], value)
        axes.set_ylabel(label)
        axes.set_xlabel('images a batch')
    # The first panel has every variant, training; inference has nothing to recompute.
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=5, loc='outside lower center', fontsize=8)
    row = rows[0]
    figure.suptitle(
        f'{row["model"]} {row["dtype"]} {row["layout"]}, {row["height"]} × '
        f'{row["width"]}, {row["gpu"]}, torch {row["torch"]}, triton {row["triton"]}, '
        f'{row["date"]}'
    )
    return figure


def _by_batch(
    axes: Axes, rows: Sequence[Row], value: Callable[[Row], float | None]
) -> None:
    """Groups of bars by variant; what was not measured leaves a gap."""
    batches = sorted({int(row['batch']) for row in rows})
    variants = [v for v in _VARIANT_COLOURS if any(r['variant'] == v for r in rows)]
    width = 0.8 / len(variants)
    for number, variant in enumerate(variants):
        bars = {
            batches.index(int(row['batch'])) - 0.4 + (number + 0.5) * width: value(row)
            for row in rows
            if row['variant'] == variant and value(row) is not None
        }
        colour = _VARIANT_COLOURS[variant]
        axes.bar(list(bars), list(bars.values()), width, label=variant, color=colour)
    axes.set_xticks(range(len(batches)), batches)
    axes.grid(axis='y', linewidth=0.3)


def _peak_gib(row: Row) -> float | None:
    mib = _number(row, 'peak_mib')
    return None if mib is None else mib / 1024


def _number(row: Row, column: str) -> float | None:
    return float(row[column]) if row[column] else None

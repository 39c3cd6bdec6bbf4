"""The figure of a claim, from the records and the paper's table."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.claims import Claim
from studies.tables import Records, finite, values

# Per row and column the figure of every run.
Grid = Sequence[Sequence[Sequence[float]]]
_COLORS = ('#b0603a', '#1b6ca8')


def draw(claim: Claim, records: Records) -> Figure:
    """What was measured on the left, every run a dot; the paper's on the right."""
    figure = Figure(figsize=(10, 4), layout='constrained')
    here, paper = figure.subplots(1, 2)
    found = [
        [finite(values(cell, records)) for cell in cells] for _, cells in claim.rows
    ]
    theirs = [
        [[] if cell.paper is None else [cell.paper] for cell in cells]
        for _, cells in claim.rows
    ]
    for axes, grid, title in (
        (here, found, claim.measured),
        (paper, theirs, claim.paper),
    ):
        (_bars if claim.bars else _lines)(axes, claim, grid)
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
        axes.set_title(textwrap.fill(title, 60), fontsize=9)
        axes.set_xlabel(claim.corner)
        axes.grid(axis='y', linewidth=0.3)
    # Of the paper's: it has something in every column, measured or not.
    handles, names = paper.get_legend_handles_labels()
    figure.legend(handles, names, loc='outside lower center', ncols=2, frameon=False)
    figure.suptitle(claim.title)
    return figure


def _lines(axes: Axes, claim: Claim, grid: Grid) -> None:
    places = range(len(claim.rows))
    for column, name in enumerate(claim.columns):
        runs = [row[column] for row in grid]
        points = [
            (p, statistics.mean(r)) for p, r in zip(places, runs, strict=True) if r
        ]
        if points:
            axes.plot(
                *zip(*points, strict=True), '-', color=_COLORS[column], label=name
            )
        for place, found in zip(places, runs, strict=True):
            axes.plot([place] * len(found), found, 'o', color=_COLORS[column], ms=4)
    axes.set_xticks(places, [name for name, _ in claim.rows])


def _bars(axes: Axes, claim: Claim, grid: Grid) -> None:
    width = 0.8 / len(claim.columns)
    for column, name in enumerate(claim.columns):
        for place, row in enumerate(grid):
            found = row[column]
            x = place - 0.4 + (column + 0.5) * width
            if not found:
                axes.text(x, 0, '–', ha='center', va='bottom')
                continue
            label = name if not any(r[column] for r in grid[:place]) else None
            axes.bar(
                x, statistics.mean(found), width, color=_COLORS[column], label=label
            )
            if len(found) > 1:
                axes.plot([x] * len(found), found, 'o', color='black', ms=3)
    axes.set_xticks(range(len(claim.rows)), [name for name, _ in claim.rows])
    axes.set_xlim(-0.6, len(claim.rows) - 0.4)

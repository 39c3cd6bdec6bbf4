"""The report's figures as data addresses of SVG, so that one file holds them all."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gn_det.workbench.evaluation.ap_table import KINDS
from gn_det.workbench.evaluation.curves import (
    FIGURES,
    plot_figures,
    plot_losses,
    step_unit,
    whole_steps,
)
from gn_det.workbench.evaluation.run_log import RunLog
from gn_det.workbench.report.scores import IOU_50, IOU_75, Scores

_COLORS = {'bbox': 'tab:blue', 'segm': 'tab:orange'}
_STYLE = {
    'svg.fonttype': 'path',
    # The same figures give the same file.
    'svg.hashsalt': 'gn_det',
    'axes.spines.top': False,
    'axes.spines.right': False,
    # A dollar sign in a class's name is no formula.
    'text.parse_math': False,
    'font.size': 8.5,
    'legend.edgecolor': 'none',
    'legend.fontsize': 'small',
}
# Three of them fill a row of the page.
_SIZE = (3.75, 2.8)


def _data_address(figure: Figure) -> str:
    content = io.BytesIO()
    figure.savefig(content, format='svg', metadata={'Date': None})
    encoded = base64.b64encode(content.getvalue()).decode()
    return f'data:image/svg+xml;base64,{encoded}'


def _drawn(draw, size: tuple[float, float] = _SIZE) -> str:
    """The address of a figure whose one pair of axes `draw` fills."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout='constrained')
        axes = figure.subplots()
        draw(axes)
        return _data_address(figure)


def losses(log: RunLog) -> str:
    """All losses of one run against iterations."""
    return _drawn(lambda axes: plot_losses(axes, log))


def figures(log: RunLog) -> str:
    """AP and AP50 of one run."""
    return _drawn(lambda axes: plot_figures(axes, log))


def rates(log: RunLog) -> str:
    """Learning rate against iterations."""
    return _drawn(lambda axes: _plot(axes, {'': log.train}, 'lr', 'learning rate'))


def speed(log: RunLog) -> str:
    """Seconds per iteration, and those of waiting for data."""

    def draw(axes: Axes) -> None:
        for key, label in (('time', 'whole iteration'), ('data_time', 'loading')):
            points = [(r['iter'], r[key]) for r in log.train if key in r]
            if points:
                axes.plot(*zip(*points, strict=True), label=label)
        axes.set(xlabel='iteration', ylabel='seconds', ylim=(0, None))
        whole_steps(axes)
        axes.grid(alpha=0.3)
        axes.legend()

    return _drawn(draw)


def compared_losses(logs: Mapping[str, RunLog]) -> str:
    """The total loss of several runs."""
    records = {name: log.train for name, log in logs.items()}
    return _drawn(lambda axes: _plot(axes, records, 'loss', 'loss'))


def compared_figures(logs: Mapping[str, RunLog], key: str) -> str:
    """One AP of several runs, such as `coco/bbox_mAP`."""
    records = {name: log.val for name, log in logs.items()}

    def draw(axes: Axes) -> None:
        _plot(axes, records, key, FIGURES[key], 'step')
        axes.set_xlabel(' or '.join(sorted({step_unit(log) for log in logs.values()})))

    return _drawn(draw)


def _plot(
    axes: Axes,
    runs: Mapping[str, Sequence[dict]],
    key: str,
    label: str,
    against: str = 'iter',
) -> None:
    for name, records in runs.items():
        points = [(r[against], r[key]) for r in records if key in r]
        if points:
            marker = 'o' if against == 'step' else None
            axes.plot(*zip(*points, strict=True), label=name, marker=marker)
    axes.set(xlabel='iteration', ylabel=label, ylim=(0, None))
    whole_steps(axes)
    axes.grid(alpha=0.3)
    if len(runs) > 1:
        axes.legend()


def precision_recall(scores: Sequence[Scores], names: Sequence[str]) -> str:
    """Precision against recall, the mean over the classes, at IoU 0.50 and 0.75."""

    def draw(axes: Axes) -> None:
        recall = np.linspace(0, 1, 101)
        for index, (one, name) in enumerate(zip(scores, names, strict=True)):
            for iou, style in ((IOU_50, '-'), (IOU_75, '--')):
                label = f'{name}, IoU {0.5 + 0.05 * iou:.2f}'
                axes.plot(recall, one.precision[iou], style, color=f'C{index}',
                          label=label)  # fmt: skip
        axes.set(xlabel='recall', ylabel='precision', xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.legend(loc='center left', bbox_to_anchor=(1, 0.5))

    return _drawn(draw, (_SIZE[0] * 1.5, _SIZE[1] * 1.15))


def class_bars(scores: Sequence[Scores]) -> str:
    """AP per class, the best at the top; a class without objects is left out."""
    first = scores[0]
    order = [i for i in np.argsort(first.class_ap) if not np.isnan(first.class_ap[i])]
    height = max(1.6, 0.55 + 0.2 * len(order) * len(scores))

    def draw(axes: Axes) -> None:
        thickness = 0.8 / len(scores)
        for index, one in enumerate(scores):
            places = np.arange(len(order)) + thickness * (len(scores) - 1 - index)
            bars = axes.barh(
                places,
                one.class_ap[order],
                thickness,
                color=_COLORS[one.kind],
                label=KINDS[one.kind],
            )
            axes.bar_label(bars, fmt='%.3f', padding=3, fontsize=8)
        middle = np.arange(len(order)) + thickness * (len(scores) - 1) / 2
        axes.set_yticks(middle, [first.classes[i] for i in order])
        axes.set(xlabel='AP', xlim=(0, 1), ylim=(-0.6, len(order) - 0.1))
        axes.grid(axis='x', alpha=0.3)
        if len(scores) > 1:
            axes.legend(loc='lower right')

    return _drawn(draw, (_SIZE[0] * 1.6, height))

"""The report's figures as data addresses of SVG, so that one file holds them all."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gn_det.workbench.evaluation.confusion import Confusion
from gn_det.workbench.evaluation.kept_scores import KeptScores
from gn_det.workbench.evaluation.kinds import KINDS
from gn_det.workbench.evaluation.text import printable
from gn_det.workbench.report.run_log import RunLog

_LOSSES = {
    'loss': 'total',
    'loss_rpn_cls': 'RPN class',
    'loss_rpn_bbox': 'RPN box',
    'loss_cls': 'class',
    'loss_bbox': 'box',
    'loss_mask': 'mask',
}
_COLORS = {'bbox': 'tab:blue', 'segm': 'tab:orange'}
_STYLE = {
    'svg.fonttype': 'path',
    # The same numbers give the same file.
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
# Of a class or a run; the rest of a longer name is cut off.
_MOST_CHARACTERS = 60
_MOST_CLASSES = 20


def losses(log: RunLog) -> str:
    """All losses of one run against iterations."""

    def draw(axes: Axes) -> None:
        for key, label in _LOSSES.items():
            width = 2.2 if key == 'loss' else 1.2
            _line(axes, log.train, 'iter', key, label=label, linewidth=width)
        _finish(axes, 'iteration', 'loss')

    return _drawn(draw)


def precisions(log: RunLog) -> str:
    """AP and AP50 of one run in percent, against epochs or iterations."""

    def draw(axes: Axes) -> None:
        for kind, words in KINDS.items():
            for item, style in (('mAP', '-'), ('mAP_50', ':')):
                label = f'{words.name} {item.removeprefix("m").replace("_", "")}'
                _line(
                    axes, log.val, 'step', f'coco/{kind}_{item}', percent=True,
                    linestyle=style, color=_COLORS[kind], marker='o', label=label,
                )  # fmt: skip
        _finish(axes, step_unit(log), 'AP (%)')
        # A floor of 10, so that noise about zero does not fill the figure.
        axes.set_ylim(0, min(100, max(10, axes.get_ylim()[1])))

    return _drawn(draw)


def rates(log: RunLog) -> str:
    """Learning rate against iterations."""

    def draw(axes: Axes) -> None:
        _line(axes, log.train, 'iter', 'lr')
        _finish(axes, 'iteration', 'learning rate')

    return _drawn(draw)


def speed(log: RunLog) -> str:
    """Seconds per iteration, and those of waiting for data."""

    def draw(axes: Axes) -> None:
        for key, label in (('time', 'whole iteration'), ('data_time', 'loading')):
            _line(axes, log.train, 'iter', key, label=label)
        _finish(axes, 'iteration', 'seconds')

    return _drawn(draw)


def compared_losses(logs: Mapping[str, RunLog]) -> str:
    """The total loss of several runs."""

    def draw(axes: Axes) -> None:
        for name, log in logs.items():
            _line(axes, log.train, 'iter', 'loss', label=_label(name))
        _finish(axes, 'iteration', 'loss')

    return _drawn(draw)


def compared_precisions(logs: Mapping[str, RunLog], kind: str) -> str:
    """The AP of several runs in percent, of `'bbox'` or `'segm'`."""

    def draw(axes: Axes) -> None:
        for name, log in logs.items():
            _line(
                axes, log.val, 'step', f'coco/{kind}_mAP', percent=True,
                label=_label(name), marker='o',
            )  # fmt: skip
        units = ' or '.join(sorted({step_unit(log) for log in logs.values()}))
        _finish(axes, units, f'{KINDS[kind].name} AP (%)')

    return _drawn(draw)


def precision_recall(kinds: Mapping[str, KeptScores]) -> str:
    """Precision against recall, the mean over the classes, at IoU 0.50 and 0.75."""

    def draw(axes: Axes) -> None:
        recall = np.linspace(0, 1, 101)
        for kind, scores in kinds.items():
            for iou, style in ((0.5, '-'), (0.75, '--')):
                for row in np.flatnonzero(np.isclose(scores.iou_thresholds, iou)):
                    label = f'{KINDS[kind].things}, IoU {iou:.2f}'
                    axes.plot(recall, scores.precision[row], style,
                              color=_COLORS[kind], label=label)  # fmt: skip
        axes.set(xlabel='recall', ylabel='precision', xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.legend(loc='center left', bbox_to_anchor=(1, 0.5))

    return _drawn(draw, (_SIZE[0] * 1.5, _SIZE[1] * 1.15))


def class_bars(kinds: Mapping[str, KeptScores]) -> str:
    """AP per class, the best at the top; a class without objects is left out."""
    first = next(iter(kinds.values())).class_ap
    names = [name for name in sorted(first, key=first.__getitem__) if first[name] >= 0]
    height = max(1.6, 0.55 + 0.2 * len(names) * len(kinds))

    def draw(axes: Axes) -> None:
        thickness = 0.8 / len(kinds)
        for index, (kind, scores) in enumerate(kinds.items()):
            bars = axes.barh(
                np.arange(len(names)) + thickness * (len(kinds) - 1 - index),
                [100 * max(scores.class_ap.get(name, 0), 0) for name in names],
                thickness,
                color=_COLORS[kind],
                label=KINDS[kind].name,
            )
            axes.bar_label(bars, fmt='%.1f', padding=3, fontsize=8)
        middle = np.arange(len(names)) + thickness * (len(kinds) - 1) / 2
        axes.set_yticks(middle, list(map(_label, names)))
        axes.set(xlabel='AP (%)', xlim=(0, 100), ylim=(-0.6, len(names) - 0.1))
        axes.grid(axis='x', alpha=0.3)
        if len(kinds) > 1:
            axes.legend(loc='lower right')

    return _drawn(draw, (_SIZE[0] * 1.6, height))


def confusion(pairs: Sequence[Confusion]) -> str:
    """Truth down, what it was found as across, in percent of the objects of a class.

    The classes with the most mistakes, in the order of their names, and nothing last.
    """
    wrong: Counter[str] = Counter()
    for one in pairs:
        for name in (one.truth, one.found):
            if name is not None:
                wrong[name] += (one.truth != one.found) * one.count
    names = [*sorted(name for name, _ in wrong.most_common(_MOST_CLASSES)), None]
    counts = np.zeros((len(names), len(names)))
    objects = Counter(dict.fromkeys(names, 0))
    for one in pairs:
        objects[one.truth] += one.count
        if one.truth in names and one.found in names:
            counts[names.index(one.truth), names.index(one.found)] += one.count
    totals = np.array([[max(objects[name], 1)] for name in names])
    shares = 100 * counts / totals
    # There is no number of nothings.
    shares[-1] = np.nan
    labels = [_label(name or 'nothing') for name in names]
    side = max(_SIZE[0], 1.6 + 0.36 * len(names))

    def draw(axes: Axes) -> None:
        axes.imshow(shares, cmap='Blues', vmin=0, vmax=100)
        for (row, column), share in np.ndenumerate(shares):
            text = f'{counts[row, column]:.0f}' if np.isnan(share) else f'{share:.0f}'
            if counts[row, column]:
                dark = 'white' if share > 60 else 'black'
                axes.text(column, row, text, ha='center', va='center', color=dark,
                          fontsize=7)  # fmt: skip
        axes.set_xticks(range(len(names)), labels, rotation=90)
        axes.set_yticks(range(len(names)), labels)
        axes.set(xlabel='found as', ylabel='truth (% of the class; counts for nothing)')

    return _drawn(draw, (side * 1.15, side))


def step_unit(log: RunLog) -> str:
    """What validations are counted in, `epoch` or `iteration`."""
    return 'epoch' if not log.train or 'epoch' in log.train[-1] else 'iteration'


def _drawn(draw: Callable[[Axes], None], size: tuple[float, float] = _SIZE) -> str:
    """The address of a figure whose one pair of axes `draw` fills."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout='constrained')
        draw(figure.subplots())
        content = io.BytesIO()
        figure.savefig(content, format='svg', metadata={'Date': None})
    encoded = base64.b64encode(content.getvalue()).decode()
    return f'data:image/svg+xml;base64,{encoded}'


def _line(
    axes: Axes,
    records: Sequence[Mapping[str, float]],
    against: str,
    key: str,
    percent: bool = False,
    **style: object,
) -> None:
    factor = 100 if percent else 1
    points = [(r[against], factor * r[key]) for r in records if key in r]
    if points:
        axes.plot(*zip(*points, strict=True), **style)


def _finish(axes: Axes, steps: str, label: str) -> None:
    axes.set(xlabel=steps, ylabel=label, ylim=(0, None))
    # Whole steps, also where there is one.
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    if any(not line.get_label().startswith('_') for line in axes.lines):
        axes.legend()


def _label(name: str) -> str:
    """A name as it can stand in a figure: XML has no place for control characters."""
    name = printable(name)
    short = f'{name[:_MOST_CHARACTERS]}…' if len(name) > _MOST_CHARACTERS else name
    # matplotlib hides what begins with an underscore from its legends.
    return f' {short}' if short.startswith('_') else short

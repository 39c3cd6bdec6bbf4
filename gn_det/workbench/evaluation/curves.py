"""The loss and AP curves of a run as one picture."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gn_det.workbench.evaluation.run_log import RunLog

_LOSSES = {
    'loss': 'total',
    'loss_rpn_cls': 'RPN class',
    'loss_rpn_bbox': 'RPN box',
    'loss_cls': 'class',
    'loss_bbox': 'box',
    'loss_mask': 'mask',
}
FIGURES = {
    'coco/bbox_mAP': 'box AP',
    'coco/segm_mAP': 'mask AP',
    'coco/bbox_mAP_50': 'box AP50',
    'coco/segm_mAP_50': 'mask AP50',
}


def draw_curves(log: RunLog, path: str | Path, title: str = '') -> None:
    """Draw losses against iterations and AP (0–1) against epochs into a PNG."""
    figure = Figure(figsize=(11, 4.2), layout='constrained')
    left, right = figure.subplots(1, 2)
    plot_losses(left, log)
    plot_figures(right, log)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def plot_losses(axes: Axes, log: RunLog) -> None:
    """Draw the losses against iterations."""
    for key, label in _LOSSES.items():
        points = [(r['iter'], r[key]) for r in log.train if key in r]
        if points:
            width = 2.2 if key == 'loss' else 1.2
            axes.plot(*zip(*points, strict=True), label=label, linewidth=width)
    axes.set(xlabel='iteration', ylabel='loss', ylim=(0, None))
    whole_steps(axes)
    _finish(axes)


def plot_figures(axes: Axes, log: RunLog) -> None:
    """Draw AP and AP50 (0–1) against epochs, or iterations if those were counted."""
    for key, label in FIGURES.items():
        points = [(r['step'], r[key]) for r in log.val if key in r]
        if points:
            style = ':' if key.endswith('_50') else '-'
            color = 'C0' if 'bbox' in key else 'C1'
            axes.plot(
                *zip(*points, strict=True), style, color=color, marker='o', label=label
            )
    axes.set(xlabel=step_unit(log), ylabel='AP')
    # A floor of 0.1, so that noise about zero does not fill the figure.
    axes.set_ylim(0, min(1, max(0.1, axes.get_ylim()[1])))
    whole_steps(axes)
    _finish(axes)


def whole_steps(axes: Axes) -> None:
    """Let the ticks of the steps be whole numbers, also where there is one step."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def step_unit(log: RunLog) -> str:
    """What validations are counted in, `epoch` or `iteration`."""
    return 'epoch' if not log.train or 'epoch' in log.train[-1] else 'iteration'


def _finish(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize='small')

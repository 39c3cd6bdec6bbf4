"""The loss and AP curves of a run as one picture."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gn_det.evaluation.run_log import RunLog

_LOSSES = {
    'loss': 'total',
    'loss_rpn_cls': 'RPN class',
    'loss_rpn_bbox': 'RPN box',
    'loss_cls': 'class',
    'loss_bbox': 'box',
    'loss_mask': 'mask',
}
_FIGURES = {
    'coco/bbox_mAP': 'box AP',
    'coco/segm_mAP': 'mask AP',
    'coco/bbox_mAP_50': 'box AP50',
    'coco/segm_mAP_50': 'mask AP50',
}


def draw_curves(log: RunLog, path: str | Path, title: str = '') -> None:
    """Draw losses against iterations and AP (0–1) against epochs into a PNG."""
    figure = Figure(figsize=(11, 4.2), layout='constrained')
    losses, figures = figure.subplots(1, 2)
    for key, label in _LOSSES.items():
        points = [(r['iter'], r[key]) for r in log.train if key in r]
        if points:
            width = 2.2 if key == 'loss' else 1.2
            losses.plot(*zip(*points, strict=True), label=label, linewidth=width)
    losses.set(xlabel='iteration', ylabel='loss', ylim=(0, None))
    for key, label in _FIGURES.items():
        points = [(r['step'], r[key]) for r in log.val if key in r]
        if points:
            style = ':' if key.endswith('_50') else '-'
            figures.plot(*zip(*points, strict=True), style, marker='o', label=label)
    figures.set(xlabel='epoch', ylabel='AP', ylim=(0, 1))
    figures.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (losses, figures):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize='small')
    figure.suptitle(title)
    figure.savefig(path, dpi=120)

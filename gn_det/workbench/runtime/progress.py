"""Training one can follow: AP lines with the time left, TensorBoard, kept results."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Mapping
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner

from gn_det.version import __version__
from gn_det.workbench.evaluation.ap_table import percent
from gn_det.workbench.evaluation.kinds import KINDS
from gn_det.workbench.inputs.building import type_name

VALIDATION_RESULTS = 'val'
_PARTIAL = 'val.partial'
_RESULTS = (*KINDS, 'proposal', 'scores')
# The two families have the same modules under different names of their packages.
_PACKAGES = (
    'mmdet', 'onedl-mmdetection', 'mmcv-lite', 'mmcv', 'onedl-mmcv', 'triton',
)  # fmt: skip


@HOOKS.register_module()
class ProgressHook(Hook):
    """Say after each validation what was reached, and keep its results.

    The line holds AP, AP50 and AP75 (percent) of boxes and masks, the best AP so far,
    and the time left. Unlike the `eta` of mmengine's lines, which counts training
    iterations alone, this one contains validation and saving.

    The results of the last validation stay in the work directory as COCO JSON
    (`val.bbox.json`, `val.segm.json`), with the scores and pictures of the report
    (`val.scores.json`). They are written beside their place and renamed.
    """

    # After the hooks that log the scores and save the checkpoint.
    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        """Note when and where the run starts."""
        self._start_s = time.monotonic()
        self._start_iter = runner.iter
        self._best: dict[str, tuple[float, int]] = {}
        runner.logger.info(f'Packages: {installed_packages()}')

    def before_val_epoch(self, runner: Runner) -> None:
        """Let COCO metrics without a place of their own write into the work folder."""
        if is_main_process():
            remove_partial_results(runner.work_dir)
        for metric in runner.val_evaluator.metrics:
            if isinstance(metric, CocoMetric) and metric.outfile_prefix is None:
                metric.outfile_prefix = os.path.join(runner.work_dir, _PARTIAL)

    def after_val_epoch(
        self, runner: Runner, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Log the line, put the results in place."""
        if is_main_process():
            _keep_results(runner.work_dir)
        if not hasattr(self, '_start_s'):
            # Validation on its own: nothing has been trained and nothing is left to.
            return
        by_epoch = not isinstance(runner.train_loop, IterBasedTrainLoop)
        step = runner.epoch if by_epoch else runner.iter
        total = runner.max_epochs if by_epoch else runner.max_iters
        unit = 'epoch' if by_epoch else 'iteration'
        parts = [f'{unit} {step}/{total}', *self._scores(metrics or {}, step, unit)]
        done = runner.iter - self._start_iter
        if done > 0:
            passed_s = time.monotonic() - self._start_s
            left_s = passed_s / done * (runner.max_iters - runner.iter)
            parts.append(f'{_clock(passed_s)} passed, {_clock(left_s)} left')
        runner.logger.info(' | '.join(parts))

    def _scores(self, metrics: Mapping[str, float], step: int, unit: str) -> list[str]:
        found = []
        for kind, words in KINDS.items():
            ap = metrics.get(f'coco/{kind}_mAP')
            if ap is None:
                continue
            at = [metrics.get(f'coco/{kind}_mAP_{iou}', -1.0) for iou in (50, 75)]
            self._best[kind] = max(self._best.get(kind, (-1.0, 0)), (ap, step))
            best, where = self._best[kind]
            note = '' if where == step else f', best {percent(best)} at {unit} {where}'
            found.append(
                f'{words.name} AP {percent(ap)} (50: {percent(at[0])}, '
                f'75: {percent(at[1])}){note}'
            )
        return found


def remove_partial_results(work_dir: str | Path) -> None:
    """Remove what a killed validation left."""
    for kind in _RESULTS:
        _results(work_dir, _PARTIAL, kind).unlink(missing_ok=True)


def _results(work_dir: str | Path, prefix: str, kind: str) -> Path:
    return Path(work_dir, f'{prefix}.{kind}.json')


def _keep_results(work_dir: str) -> None:
    for kind in _RESULTS:
        fresh = _results(work_dir, _PARTIAL, kind)
        kept = _results(work_dir, VALIDATION_RESULTS, kind)
        if fresh.exists():
            os.replace(fresh, kept)
        else:
            # Nothing was detected this time: older results would be taken for new ones.
            kept.unlink(missing_ok=True)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def installed_packages() -> str:
    """`NAME VERSION` of the packages whose versions mmengine's log leaves out."""
    found = [f'gn_det {__version__}']
    for name in _PACKAGES:
        try:
            found.append(f'{name} {version(name)}')
        except PackageNotFoundError:
            continue
    return ', '.join(found)


def enable_tensorboard(cfg: Config) -> None:
    """Log to TensorBoard too where it is installed and the config does not yet."""
    if importlib.util.find_spec('tensorboard') is None:
        return
    visualizer = cfg.setdefault('visualizer', dict(type='DetLocalVisualizer'))
    backends = visualizer.get('vis_backends') or [dict(type='LocalVisBackend')]
    if not any(type_name(backend).startswith('Tensorboard') for backend in backends):
        backends = [*backends, dict(type='TensorboardVisBackend')]
    visualizer.vis_backends = backends

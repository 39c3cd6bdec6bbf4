"""How a test run evaluates: settings of the config's COCO evaluators."""

from __future__ import annotations

import contextlib
import os

from mmengine.config import Config, ConfigDict

from gn_det.workbench.errors import UserError
from gn_det.workbench.evaluation.kinds import KINDS
from gn_det.workbench.inputs.building import type_name
from gn_det.workbench.inputs.config_parts import evaluators

_COCO_METRICS = ('CocoAPMetric', 'CocoMetric')


def set_up_evaluation(
    cfg: Config,
    classwise: bool = False,
    format_only: bool = False,
    evaluator: str | None = None,
) -> None:
    """Let the test evaluators keep their results, and do what the flags ask for.

    mmdet's `CocoMetric` becomes `CocoAPMetric`. The results are written to
    `results.bbox.json` and `results.segm.json`, their scores to `results.scores.json`,
    in the work directory unless the config names a place.

    Raises:
        UserError: if a flag is given and no evaluator of the config is of COCO, or
            results would replace the annotations.
    """
    found = _coco_evaluators(cfg)
    flags = {
        '--classwise': classwise,
        '--format-only': format_only,
        '--evaluator': evaluator,
    }
    given = [flag for flag, value in flags.items() if value]
    if given and not found:
        raise UserError(
            f'{given[0]}: test_evaluator of {cfg.filename} has no CocoAPMetric'
        )
    keep_scores(cfg, 'test')
    for number, metric in enumerate(found):
        name = f'results-{number}' if number else 'results'
        if metric.get('outfile_prefix') is None:
            metric.outfile_prefix = os.path.join(cfg.work_dir, name)
        _check_paths(metric, metric.get('ann_file'))
        if classwise:
            metric.classwise = True
        if format_only:
            metric.format_only = True
        if evaluator:
            metric.evaluator = evaluator


def keep_scores(cfg: Config, split: str) -> None:
    """Let mmdet's `CocoMetric` be `CocoAPMetric`, which takes the same arguments.

    Its evaluations keep what the report shows.
    """
    for metric in _coco_evaluators(cfg, split):
        metric.type = 'CocoAPMetric'


def only_formats(cfg: Config) -> bool:
    """Whether the COCO evaluators write results and give no scores."""
    found = _coco_evaluators(cfg)
    return bool(found) and all(metric.get('format_only') for metric in found)


def evaluated_file(cfg: Config) -> str | None:
    """The annotations the first COCO evaluator of a test run compares with."""
    for metric in _coco_evaluators(cfg):
        if metric.get('ann_file'):
            return metric.ann_file
        dataset = cfg.test_dataloader.dataset
        return os.path.join(dataset.get('data_root') or '', dataset.get('ann_file', ''))
    return None


def result_files(cfg: Config) -> dict[str, tuple[int, int]]:
    """The result files of a test run that are there, each with a mark of its state."""
    found = {}
    for metric in _coco_evaluators(cfg):
        for path in _paths(metric):
            with contextlib.suppress(FileNotFoundError):
                state = os.stat(path)
                found[path] = (state.st_ino, state.st_mtime_ns)
    return found


def remove_old_results(cfg: Config, before: dict[str, tuple[int, int]]) -> list[str]:
    """Remove what an earlier test run left in the work directory.

    Beside the results of this run, which has come to its end, it would be taken for
    them. Elsewhere it may be another model's, and stays.

    Args:
        cfg: the config of the run.
        before: `result_files` before it.

    Returns:
        The result files that the run wrote.
    """
    written = []
    for path, mark in result_files(cfg).items():
        if before.get(path) != mark:
            written.append(path)
        elif os.path.dirname(path) == os.path.normpath(cfg.work_dir):
            os.remove(path)
    return written


def _paths(metric: ConfigDict) -> list[str]:
    prefix = metric.get('outfile_prefix')
    return [f'{prefix}.{kind}.json' for kind in (*KINDS, 'scores')] if prefix else []


def _check_paths(metric: ConfigDict, truth: str | None) -> None:
    for path in _paths(metric):
        if os.path.isdir(path):
            raise UserError(f'results would be written to {path}, which is a folder')
        if truth and os.path.abspath(path) == os.path.abspath(truth):
            raise UserError(
                f'results would replace the annotations {path}; name another '
                'test_evaluator.outfile_prefix'
            )


def _coco_evaluators(cfg: Config, split: str = 'test') -> list[ConfigDict]:
    return [
        metric
        for metric in evaluators(cfg, split)
        if type_name(metric) in _COCO_METRICS
    ]

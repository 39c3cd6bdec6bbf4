"""Whether a config is still evaluated as its file says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from gn_det.workbench.inputs.config_parts import evaluators, flat, leaf_datasets

# Of an evaluator; what else it has says where files are and what is shown.
_OF_EVALUATORS = ('iou_thrs', 'sort_categories')
# Of a dataset; its place does not matter, and which set it is is known by the file.
_OF_DATASETS = ('type', 'metainfo', 'filter_cfg', 'indices', 'pipeline')
# Keys that change no score: memory format and memory, where weights came from before
# the checkpoint, how files are opened, and what only training reads.
_HARMLESS = frozenset(
    {'channels_last', 'recompute', 'init_cfg', 'backend_args', 'train_cfg'}
)
_ABSENT = 'absent'


def changed_settings(cfg: Config) -> list[str]:
    """Settings with an effect on AP that are not as `cfg.filename` has them.

    Args:
        cfg: a config as it is evaluated: `--cfg-options` and flags have been applied.

    Returns:
        Texts like `model.test_cfg.rcnn.max_per_img is 20, not 100`.
    """
    here = dict(_effective(cfg))
    # Importing custom modules again would change nothing.
    there = dict(_effective(Config.fromfile(cfg.filename, import_custom_modules=False)))
    return [
        f'{key} is {here.get(key, _ABSENT)}, not {there.get(key, _ABSENT)}'
        for key in dict.fromkeys((*here, *there))
        if here.get(key, _ABSENT) != there.get(key, _ABSENT)
    ]


def _effective(cfg: Config) -> Iterator[tuple[str, str]]:
    parts = [('model', cfg.get('model'))]
    for evaluator in evaluators(cfg, 'test'):
        parts.append(('test_evaluator', _kept(evaluator, _OF_EVALUATORS)))
    for dataset in leaf_datasets(cfg.test_dataloader.dataset):
        parts.append(('test_dataloader.dataset', _kept(dataset, _OF_DATASETS)))
    for name, part in parts:
        for key, text in flat(part, name):
            if not _HARMLESS.intersection(key.split('.')):
                yield key, text


def _kept(settings: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: settings[key] for key in keys if key in settings}

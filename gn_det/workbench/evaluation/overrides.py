"""Whether a config is still evaluated as its file says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from gn_det.workbench.inputs.data import leaf_datasets

# Of an evaluator; what else it has says where files are and what is shown.
_OF_EVALUATORS = ('iou_thrs', 'sort_categories')
# Of a dataset; its place does not matter, and which set it is is known by the file.
_OF_DATASETS = ('type', 'metainfo', 'filter_cfg', 'indices', 'pipeline')
# Keys that change no figure: memory format and memory, where weights came from before
# the checkpoint, how files are opened, and what only training reads.
_HARMLESS = frozenset(
    {'channels_last', 'recompute', 'init_cfg', 'backend_args', 'train_cfg'}
)
_ABSENT = 'absent'


def overrides(cfg: Config) -> list[str]:
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
    yield from _flat(cfg.get('model'), 'model')
    evaluators = cfg.get('test_evaluator') or []
    evaluators = evaluators if isinstance(evaluators, list) else [evaluators]
    for evaluator in evaluators:
        yield from _flat(_kept(evaluator, _OF_EVALUATORS), 'test_evaluator')
    for dataset in leaf_datasets(cfg.test_dataloader.dataset):
        yield from _flat(_kept(dataset, _OF_DATASETS), 'test_dataloader.dataset')


def _kept(settings: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: settings[key] for key in keys if key in settings}


def _flat(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Dotted keys and values; the values as text, in which (1,) and [1] differ not."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in _HARMLESS:
                yield from _flat(item, f'{path}.{key}')
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _flat(item, f'{path}.{place}')
    else:
        yield path, repr(value)

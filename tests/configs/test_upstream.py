"""Configs of mmdet's names train as mmdet's: every setting but those listed here."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import mmdet
import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from tests.configs.zoo import LEAVES, load

UPSTREAM = Path(mmdet.__file__).parent / '.mim' / 'configs'
FOLDERS = ('gn', 'gn+ws', 'scratch')
SHARED = tuple(leaf for leaf in LEAVES if (UPSTREAM / leaf).is_file())
# Everything Runner.from_cfg reads but the work directory and the launcher, which are
# the run's; the rest of a config are variables of its text.
SETTINGS = (
    'model',
    'data_preprocessor',
    'train_cfg',
    'val_cfg',
    'test_cfg',
    'param_scheduler',
    'optim_wrapper',
    'auto_scale_lr',
    'train_dataloader',
    'val_dataloader',
    'test_dataloader',
    'val_evaluator',
    'test_evaluator',
    'default_hooks',
    'custom_hooks',
    'env_cfg',
    'randomness',
    'experiment_name',
    'runner_type',
    'visualizer',
    'log_processor',
    'log_level',
    'load_from',
    'resume',
    'default_scope',
)
ABSENT = 'absent'


class Difference(NamedTuple):
    """Settings that match `pattern` are `stock` there and `ours` here, for a reason."""

    pattern: str
    stock: Any
    ours: Any
    reason: str


DIFFERENCES = (
    Difference('*.norm_cfg.type', 'GN', 'FusedGN', 'the layer this project is about'),
    Difference('model.type', 'MaskRCNN', 'FusedMaskRCNN', 'fuses ReLU and addition'),
    Difference(
        'model.type', 'FasterRCNN', 'FusedFasterRCNN', 'fuses ReLU and addition'
    ),
    Difference(
        '*_evaluator.type',
        'CocoMetric',
        'CocoAPMetric',
        'the same figures; 0 AP, not none, where nothing is detected',
    ),
    Difference(
        'optim_wrapper.paramwise_cfg.norm_decay_mult',
        ABSENT,
        1.0,
        'our schedules spare γ and β; 1, the default, takes that back',
    ),
)


def flat(value: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """Dotted path and value of every leaf; empty containers are leaves too.

    `_scope_` is mmengine's note on bases of other packages, not a setting.
    """
    if isinstance(value, dict):
        items = [(key, item) for key, item in value.items() if key != '_scope_']
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    else:
        items = []
    if not items:
        yield path, value
    for key, item in items:
        yield from flat(item, f'{path}.{key}' if path else str(key))


def flattened(cfg: Config) -> dict[str, Any]:
    values = cfg.to_dict()
    return dict(flat({name: values[name] for name in SETTINGS if name in values}))


def differences(leaf: str) -> dict[str, tuple[Any, Any]]:
    """Setting → (mmdet's, ours) wherever they are not equal."""
    stock = flattened(Config.fromfile(UPSTREAM / leaf))
    ours = flattened(load(leaf))
    pairs = {
        path: (stock.get(path, ABSENT), ours.get(path, ABSENT))
        for path in {*stock, *ours}
    }
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}


def reasons(path: str, pair: tuple[Any, Any]) -> set[Difference]:
    return {
        row
        for row in DIFFERENCES
        if fnmatchcase(path, row.pattern) and pair == (row.stock, row.ours)
    }


def test_settings_are_what_the_runner_reads():
    read = re.findall(r"cfg(?:\.get\(|\[)'(\w+)'", inspect.getsource(Runner.from_cfg))
    assert {*SETTINGS, 'work_dir', 'launcher'} == {*read, 'runner_type'}


def test_every_config_of_the_families_upstream_is_here():
    theirs = {
        path.relative_to(UPSTREAM).as_posix()
        for folder in FOLDERS
        for path in (UPSTREAM / folder).glob('*.py')
    }
    assert theirs == set(SHARED)
    assert len(theirs) == 20


@pytest.mark.parametrize('leaf', SHARED)
def test_trains_as_upstream_does(leaf):
    unexplained = {
        path: pair
        for path, pair in differences(leaf).items()
        if not reasons(path, pair)
    }
    assert not unexplained


def test_every_listed_difference_exists():
    found = {
        row
        for leaf in (
            'gn/mask-rcnn_r50_fpn_gn-all_3x_coco.py',
            'gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco.py',
        )
        for path, pair in differences(leaf).items()
        for row in reasons(path, pair)
    }
    assert found == set(DIFFERENCES)

"""Settings of a config that nobody reads, or that hold no number where one belongs."""

from __future__ import annotations

import ast
import difflib
import inspect
import logging
import math
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from gn_det.workbench.errors import UserError

_SPLITS = ('train', 'val', 'test')
# What mmengine's and mmdet's tools and this project's read besides Runner's arguments.
_READ = {
    'auto_scale_lr', 'backend_args',
    'compile', 'custom_imports', 'data_root', 'env_cfg', 'find_unused_parameters',
    'model_wrapper_cfg', 'runner_type', 'skip_broken_images', 'strategy', 'tta_model',
    'tta_pipeline',
}  # fmt: skip
_OF_NO_WORKERS = ('persistent_workers', 'prefetch_factor')
_NEAR = 0.8


def check_settings(cfg: Config, options: Collection[str] = ()) -> None:
    """Check numbers and names of a config, and drop what needs worker processes.

    Without workers torch refuses `persistent_workers` and `prefetch_factor`, which base
    configs set.

    Args:
        cfg: a whole config.
        options: the keys of `--cfg-options`.

    Raises:
        UserError: naming a setting that is no number or too small, or a key at the top
            that nothing reads and that is like one that is read. Others that nothing
            reads are logged.
    """
    for split in _SPLITS:
        loader = cfg.get(f'{split}_dataloader')
        if not isinstance(loader, dict):
            continue
        name = f'{split}_dataloader'
        _check_whole(cfg, f'{name}.batch_size', loader.get('batch_size'), 1)
        _check_whole(cfg, f'{name}.num_workers', loader.get('num_workers'), 0)
        if loader.get('num_workers') == 0:
            for key in _OF_NO_WORKERS:
                loader.pop(key, None)
    loop = cfg.get('train_cfg')
    if isinstance(loop, dict):
        for key in ('max_epochs', 'max_iters', 'val_interval'):
            _check_whole(cfg, f'train_cfg.{key}', loop.get(key), 1)
    for place, value in _rates(cfg.get('optim_wrapper'), 'optim_wrapper'):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (is_number and math.isfinite(value) and value >= 0):
            raise _wrong(cfg, place, value, 'a number, not negative')
    _name_unread(cfg, options)


def _check_whole(cfg: Config, place: str, value: Any, least: int) -> None:
    if value is not None and (type(value) is not int or value < least):
        raise _wrong(cfg, place, value, f'a whole number from {least} on')


def _wrong(cfg: Config, place: str, value: Any, wanted: str) -> UserError:
    return UserError(
        f'{place} of {cfg.filename} is {value!r}; expected {wanted}, also of '
        '--cfg-options'
    )


def _rates(part: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(part, dict):
        for key, value in part.items():
            if key in ('lr', 'weight_decay', 'momentum'):
                yield f'{place}.{key}', value
            else:
                yield from _rates(value, f'{place}.{key}')


def _name_unread(cfg: Config, options: Collection[str]) -> None:
    # To list the zoo no Runner is needed, and it is slow to import.
    from mmengine.runner import Runner

    read = _READ | set(inspect.signature(Runner.__init__).parameters)
    unread = {key.partition('.')[0] for key in options} - read
    if str(cfg.filename).endswith('.py'):
        unread |= _unused_names(Path(cfg.filename)) - read
    for key in sorted(unread):
        # train_pipeline and test_pipeline are names of many configs.
        near = difflib.get_close_matches(key, read - {'tta_pipeline'}, 1, _NEAR)
        if near:
            raise UserError(
                f'{key} of {cfg.filename} or --cfg-options is read by nothing (did you '
                f'mean {near[0]}?); rename or remove it'
            )
        if os.environ.get('RANK', '0') == '0':
            print_log(
                f'{key} of {cfg.filename} or --cfg-options is read by nothing; parts '
                'of the config keep the values they have',
                logger='current',
                level=logging.WARNING,
            )


def _unused_names(path: Path) -> set[str]:
    """Names that a config file gives values to and never uses."""
    tree = ast.parse(path.read_text(encoding='utf-8'))
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    used = {node.id for node in names if isinstance(node.ctx, ast.Load)}
    given = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    return {name for name in given - used if not name.startswith('_')}

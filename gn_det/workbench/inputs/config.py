"""Loading a config the way mmdet's tools do, with answers to wrong paths."""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
from pathlib import Path
from typing import Any

from mmengine.config import Config

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.config_names import find_config, packaged_configs
from gn_det.workbench.inputs.config_styles import name_types, restore_tuples
from gn_det.workbench.inputs.settings import check_settings

_DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
_EVALUATORS = ('val_evaluator', 'test_evaluator')


def load_config(
    path: str, options: dict[str, Any] | None = None, work_dir: str | None = None
) -> Config:
    """Read a config file, apply `--cfg-options` and settle the work directory.

    `data_root` among the options moves the data of all dataloaders and evaluators,
    not only the variable of that name at the top of the file.

    Args:
        path: a `.py` or `.json` config, of old or new style, or what `find_config`
            takes for one.
        options: dotted keys and values to override.
        work_dir: outranks the config's own; the default is `work_dirs/<config name>`.

    Raises:
        UserError: if there is no such file (near names are listed), if it cannot be
            read as a config, or if an option does not fit it.
    """
    given, path = path, find_config(path)
    if not os.path.isfile(path):
        raise UserError(f'config not found: {given}{_near_names(given)}')
    try:
        # Modules that a config imports announce things; stdout is the tools' own.
        with contextlib.redirect_stdout(sys.stderr):
            cfg = Config.fromfile(path)
    except Exception as error:  # A config is code: it can raise anything.
        raise UserError(f'cannot read config {path}: {_one_line(error)}') from error
    cfg = name_types(cfg) if path.endswith('.py') else restore_tuples(cfg)
    options = dict(options or {})
    data_root = options.pop('data_root', None)
    if data_root is not None:
        move_data_root(cfg, str(data_root))
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError, AssertionError) as error:
        raise UserError(
            f'--cfg-options does not fit {path}: {_one_line(error)}'
        ) from error
    check_settings(cfg, options)
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('./work_dirs', Path(path).stem)
    return cfg


def move_data_root(cfg: Config, new_root: str) -> None:
    """Point every dataset and annotation file under the config's data_root elsewhere.

    mmdet's configs join `data_root` into other values while they are read, so setting
    the variable afterwards would change nothing.

    Raises:
        UserError: if the config has no `data_root` to start from.
    """
    old_root = cfg.get('data_root')
    if old_root is None:
        raise UserError(
            f'{cfg.filename} has no data_root; set '
            'train_dataloader.dataset.data_root and its like instead'
        )
    new_root = os.path.join(new_root, '')

    def moved(value: Any) -> Any:
        if isinstance(value, str) and value.startswith(old_root):
            return new_root + value[len(old_root) :]
        if isinstance(value, dict):
            for key, item in value.items():
                value[key] = moved(item)
        elif isinstance(value, list):
            value[:] = [moved(item) for item in value]
        return value

    for name in (*_DATALOADERS, *_EVALUATORS):
        if cfg.get(name) is not None:
            moved(cfg[name])
    cfg.data_root = new_root


def _near_names(path: str) -> str:
    """` (did you mean: …?)` with the configs whose names are close, or nothing.

    Those of a folder `configs` here, or beside the wrong name, are given by their path,
    those of the zoo by their name.
    """
    wanted = Path(path.rpartition('::')[2])
    folders = {Path('configs'), wanted.parent} - {Path('.')}
    known = {path.stem: path.stem for path in packaged_configs()}
    known |= {
        found.stem: str(found)
        for folder in folders
        for found in folder.rglob('*.py')
        if '_base_' not in found.parts
    }
    stem = wanted.stem if wanted.suffix == '.py' else wanted.name
    close = difflib.get_close_matches(stem, known, n=3, cutoff=0.5)
    return f' (did you mean {" or ".join(map(known.get, close))}?)' if close else ''


def _one_line(error: Exception) -> str:
    text = ' '.join(str(error).split())
    return f'{type(error).__name__}: {text}' if text else type(error).__name__

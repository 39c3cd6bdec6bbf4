"""Checkpoints: never silently those of another model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import print_log

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.config_parts import differences
from gn_det.workbench.loading import loader
from gn_det.workbench.loading.dumped_config import parse_config
from gn_det.workbench.loading.weights import meta_of

# What an earlier part of the training was made with.
_OF_TRAINING = (
    'model',
    'train_dataloader',
    'optim_wrapper',
    'param_scheduler',
    'train_cfg',
    'auto_scale_lr',
)


def load_state_dict(path: str) -> Mapping[str, torch.Tensor]:
    """The weights of a checkpoint file or address, on the CPU.

    Raises:
        UserError: if there is no such file, or it is not a checkpoint, or it holds more
            than weights and plain values; nothing in it is run.
    """
    content = loader.peek(path)
    state = content.get('state_dict', content)
    if not isinstance(state, Mapping) or not state or not _are_tensors(state):
        raise UserError(f'{path} holds no state_dict of tensors')
    return state


def _are_tensors(state: Mapping) -> bool:
    return all(isinstance(value, torch.Tensor) for value in state.values())


def checkpoint_folder(cfg: Config) -> Path:
    """Where the checkpoint hook of a config saves to."""
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    out_dir = hook.get('out_dir')
    if out_dir is None:
        return Path(cfg.work_dir)
    return Path(out_dir, os.path.basename(os.path.normpath(cfg.work_dir)))


def prepare_resume(cfg: Config) -> None:
    """Keep a run that goes on to its own config and its own files.

    The config in the checkpoint is not run. Where its settings of the training differ
    from those of `cfg`, a line of the log says so. Files that the checkpoint names as
    the run's earlier ones are looked for where `cfg` saves.

    Raises:
        UserError: if the checkpoint cannot be read, or is of no run.
    """
    if not cfg.get('resume') or not cfg.get('load_from'):
        return
    loader.confine_to(checkpoint_folder(cfg))
    content = loader.peek(cfg.load_from)
    try:
        meta = meta_of(content)
        counted_up = all(isinstance(meta.get(key), int) for key in ('epoch', 'iter'))
        if not counted_up or content.get('message_hub') is None:
            raise UserError(
                'holds no state of a run to go on from; to begin with its weights, '
                f'leave --resume out and add --load-from {cfg.load_from}'
            )
        text = meta.get('cfg')
        changed = differences(cfg, parse_config(str(text or '')), _OF_TRAINING)
    except ValueError as error:
        print_log(f'The config in {cfg.load_from} cannot be compared: {error}')
        return
    except UserError as error:
        raise UserError(f'{cfg.load_from} {error}') from error
    if text and changed:
        print_log(
            f'Going on from {cfg.load_from} with other settings than it was trained '
            f'with: {counted({"changed": changed})}'
        )


def check_fit(model: torch.nn.Module, path: str, exact: bool = True) -> None:
    """Check that a checkpoint holds the weights of a model.

    Args:
        model: built from the config.
        path: the checkpoint.
        exact: whether every tensor must be there and none left over. If not, as when
            fine-tuning, one that fits is enough.

    Raises:
        UserError: naming how many tensors are missing, left over, or of another shape,
            with the first of each.
    """
    wanted = {name.removeprefix('module.'): v for name, v in model.state_dict().items()}
    given = load_state_dict(path)
    # torch adds this counter to Batch Norm when an older file lacks it.
    missing = [
        name
        for name in wanted
        if name not in given and not name.endswith('num_batches_tracked')
    ]
    left_over = [name for name in given if name not in wanted]
    reshaped = [
        f'{name} ({tuple(given[name].shape)} in the file, '
        f'{tuple(wanted[name].shape)} in the model)'
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    problems = counted(
        {'missing': missing, 'left over': left_over, 'of another shape': reshaped}
    )
    fitting = len(wanted) - len(missing) - len(reshaped)
    if problems and (exact or not fitting):
        raise UserError(
            f'{path} does not match the model of the config, of {len(wanted)} tensors: '
            f'{problems}; give the config this checkpoint was trained with'
        )


def counted(problems: Mapping[str, list[str]]) -> str:
    """Which tensors are wrong, and how: `2 missing (a, b); 4 left over (c, d, …)`."""
    found = []
    for kind, names in problems.items():
        if names:
            shown = ', '.join(names[:3]) + (', …' if len(names) > 3 else '')
            found.append(f'{len(names)} {kind} ({shown})')
    return '; '.join(found)

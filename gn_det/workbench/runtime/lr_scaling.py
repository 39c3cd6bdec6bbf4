"""Schedules counted in iterations, stretched to another batch size.

With a smaller batch at the linearly scaled rate the same training takes more
iterations. Epochs hold the same images whatever the batch; counts of iterations have to
change with it, as in detectron2's `DefaultTrainer.auto_scale_workers`.
"""

from __future__ import annotations

import math
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from gn_det.workbench.errors import UserError
from gn_det.workbench.loading import loader
from gn_det.workbench.runtime.distributed import processes

_PARTS = ('begin', 'end')
# Schedulers whose course is given by counts of iterations alone, and those counts.
_COUNTS = {
    'ConstantLR': _PARTS,
    'LinearLR': _PARTS,
    'PolyLR': _PARTS,
    'MultiStepLR': (*_PARTS, 'milestones'),
    'StepLR': (*_PARTS, 'step_size'),
    'CosineAnnealingLR': (*_PARTS, 'T_max'),
    'CosineRestartLR': (*_PARTS, 'periods'),
    'OneCycleLR': (*_PARTS, 'total_steps'),
}


def stretch_iterations(cfg: Config) -> None:
    """Keep the number of images of a training counted in iterations.

    Length, warm-up, drops of the rate and the intervals between validations and
    checkpoints are multiplied by `auto_scale_lr.base_batch_size` over the real batch:
    `train_dataloader.batch_size` times the processes of the run. A training counted in
    epochs is left alone, its warm-up too. The config notes for how many images it has
    been stretched, so that the one in a work directory is not stretched again.

    Raises:
        UserError: if a batch size is unknown or no number, the course of a scheduler
            depends on more than counts of iterations, or the config has been stretched
            for another batch.
    """
    loop = cfg.get('train_cfg') or {}
    if 'max_iters' not in loop:
        return
    count, rank = processes(cfg)
    base, real = cfg.auto_scale_lr.base_batch_size, _images(cfg) * count
    if not isinstance(base, int) or base < 1:
        raise UserError(
            f'auto_scale_lr.base_batch_size of {cfg.filename} is {base!r}; expected a '
            'number of images'
        )
    known = cfg.auto_scale_lr.get('stretched_for')
    if known is not None and known != real:
        raise UserError(
            f'{cfg.filename} has been stretched for {known} images an iteration, and '
            f'here are {real}; train with {known}, or from the config it was made of'
        )
    if real == base or known is not None:
        return
    stretch = base / real
    schedulers = _flat(cfg.get('param_scheduler') or [])
    counted = [s for s in schedulers if not s.get('by_epoch', True)]
    for scheduler in counted:
        if _name(scheduler) not in _COUNTS:
            raise UserError(
                f'--auto-scale-lr: {scheduler.get("type")} in param_scheduler of '
                f'{cfg.filename} cannot be stretched from {base} to {real} images an '
                f'iteration; train with {base}, or write a schedule for {real} and '
                'leave the flag out'
            )
    before = loop.max_iters
    lengths = ('max_iters', 'val_interval', 'val_begin', 'dynamic_intervals')
    _multiply(loop, lengths, stretch)
    for scheduler in counted:
        _multiply(scheduler, _COUNTS[_name(scheduler)], stretch)
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    if not checkpoint.get('by_epoch', True):
        _multiply(checkpoint, ('interval', 'save_begin'), stretch)
    cfg.auto_scale_lr.stretched_for = real
    if rank == 0:
        print_log(
            f'--auto-scale-lr: {real} images an iteration instead of {base}, so '
            f'{loop.max_iters} iterations instead of {before}; warm-up, drops, '
            'validations and checkpoints move with them',
            logger='current',
        )


def check_resumed_length(cfg: Config) -> None:
    """See that a run goes on with as many images an iteration as it began with.

    Its rate, drops and count of iterations come from the checkpoint, whatever the
    config has been stretched to.

    Raises:
        UserError: if the checkpoint is of a run of another length.
    """
    loop, scaling = cfg.get('train_cfg') or {}, cfg.get('auto_scale_lr') or {}
    if not (cfg.get('resume') and scaling.get('enable') and 'max_iters' in loop):
        return
    checkpoint = loader.peek(cfg.load_from)
    hub = checkpoint.get('message_hub') or {}
    before = (hub.get('runtime_info') or {}).get('max_iters')
    if before is not None and before != loop.max_iters:
        raise UserError(
            f'{cfg.load_from} is of a run of {before} iterations, and here are '
            f'{loop.max_iters}; resume with as many images an iteration as before'
        )


def _name(scheduler: dict[str, Any]) -> str:
    return str(scheduler.get('type')).rpartition('.')[2]


def _images(cfg: Config) -> int:
    """What one process trains on in an iteration."""
    images = (cfg.get('train_dataloader') or {}).get('batch_size')
    if images is None:
        raise UserError(
            f'--auto-scale-lr: {cfg.filename} has no train_dataloader.batch_size, by '
            'which a schedule counted in iterations is stretched'
        )
    return images


def _flat(schedulers: Any) -> list[dict[str, Any]]:
    """One list of what may be a scheduler, a list, or one of these per optimizer."""
    if isinstance(schedulers, dict) and 'type' not in schedulers:
        schedulers = list(schedulers.values())
    if not isinstance(schedulers, list):
        return [schedulers]
    return [scheduler for part in schedulers for scheduler in _flat(part)]


def _multiply(settings: dict[str, Any], keys: tuple[str, ...], factor: float) -> None:
    """Multiply what is there in place."""
    for key in keys:
        if settings.get(key) is not None:
            settings[key] = _times(settings[key], factor)


def _times(value: Any, factor: float) -> Any:
    """A count or several; one that is negative or infinite means never."""
    if isinstance(value, list | tuple):
        return [_times(item, factor) for item in value]
    if value <= 0 or math.isinf(value):
        return value
    return max(1, round(value * factor))

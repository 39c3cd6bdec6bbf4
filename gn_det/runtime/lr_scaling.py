"""Schedules counted in iterations, stretched to another batch size.

With a smaller batch at the linearly scaled rate the same training takes more
iterations. Epochs hold the same images whatever the batch; counts of iterations have to
change with it, as in detectron2's `DefaultTrainer.auto_scale_workers`.
"""

from __future__ import annotations

import os
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from gn_det.errors import UserError

# By launcher: where the number of processes stands, and the number of this one.
_PROCESSES = {
    'pytorch': ('WORLD_SIZE', 'RANK'),
    'slurm': ('SLURM_NTASKS', 'SLURM_PROCID'),
    'mpi': ('OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_RANK'),
}
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
    epochs is left alone, its warm-up too.

    Raises:
        UserError: if the batch size is unknown, or the course of a scheduler depends on
            more than counts of iterations.
    """
    loop = cfg.get('train_cfg') or {}
    if 'max_iters' not in loop:
        return
    count, rank = _processes(cfg)
    base, real = cfg.auto_scale_lr.base_batch_size, _images(cfg) * count
    if real == base:
        return
    stretch = base / real
    schedulers = _flat(cfg.get('param_scheduler') or [])
    counted = [s for s in schedulers if not s.get('by_epoch', True)]
    for scheduler in counted:
        if scheduler.get('type') not in _COUNTS:
            raise UserError(
                f'--auto-scale-lr: {scheduler.get("type")} in param_scheduler of '
                f'{cfg.filename} cannot be stretched from {base} to {real} images an '
                f'iteration; train with {base}, or write a schedule for {real} and '
                'leave the flag out'
            )
    before = loop.max_iters
    _multiply(loop, ('max_iters', 'val_interval', 'val_begin'), stretch)
    for scheduler in counted:
        _multiply(scheduler, _COUNTS[scheduler.type], stretch)
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    if not checkpoint.get('by_epoch', True):
        _multiply(checkpoint, ('interval', 'save_begin'), stretch)
    if rank == 0:
        print_log(
            f'--auto-scale-lr: {real} images an iteration instead of {base}, so '
            f'{loop.max_iters} iterations instead of {before}; warm-up, drops, '
            'validations and checkpoints move with them',
            logger='current',
        )


def _processes(cfg: Config) -> tuple[int, int]:
    """How many there are, and which this is: before their group is opened."""
    launcher = cfg.get('launcher', 'none')
    if launcher not in _PROCESSES:
        return 1, 0
    count, rank = _PROCESSES[launcher]
    return int(os.environ.get(count, 1)), int(os.environ.get(rank, 0))


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
    """Multiply what is there in place; a negative count means never and stays so."""
    for key in keys:
        value = settings.get(key)
        if isinstance(value, list):
            settings[key] = [max(1, round(count * factor)) for count in value]
        elif value is not None and value > 0:
            settings[key] = max(1, round(value * factor))

"""How long to fine-tune on a set of a size, and how the rate moves in that time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config

from gn_det.workbench.inputs.building import type_name

# A rule of thumb: as many images as 1500 iterations of 16, in COCO's 12 epochs or more.
_IMAGES, _LEAST, _MOST = 24_000, 12, 100
_VALIDATIONS = 20
# Of a training, between so many iterations of one process: with a warm-up of one
# mmengine would begin with the low rate and stay there.
_WARM_UP_SHARE, _WARM_UP_ITERATIONS = 0.1, (2, 500)
# Where the rate drops, as in COCO's 1x and 2x, for bases that have no drops.
_DROPS = (2 / 3, 11 / 12)


def epochs_for(images: int) -> int:
    """How many epochs a set of so many images is trained for, unless somebody says."""
    return min(max(round(_IMAGES / images), _LEAST), _MOST)


def schedule_lines(base: Config, epochs: int, epoch_iterations: int) -> list[str]:
    """The lines of a config that set its length; all but the first follow from it.

    Warm-up, drops or cosine are those of the base, at the same shares of the training.

    Args:
        base: the config that is written over.
        epochs: how many.
        epoch_iterations: of one process.
    """
    schedulers = base.get('param_scheduler') or []
    schedulers = schedulers if isinstance(schedulers, list) else [schedulers]
    by_type = {type_name(one): one for one in schedulers}
    start = by_type.get('LinearLR', {}).get('start_factor', 0.001)
    # Rounded up: mmengine cuts what is left over of an iteration.
    least, most = (
        math.ceil(1e5 * count / epoch_iterations) / 1e5 for count in _WARM_UP_ITERATIONS
    )
    interval = max(1, epochs // _VALIDATIONS)
    counted = 'max_iters' in base.train_cfg
    by_epoch = 'by_epoch=True, ' if counted else ''
    return [
        f'max_epochs = {epochs}',
        '# In epochs; {} to {} iterations of one process.'.format(*_WARM_UP_ITERATIONS),
        f'warm_up = min(max({_WARM_UP_SHARE} * max_epochs, {least}), {most})',
        *_loop(counted, interval),
        'param_scheduler = [',
        *_scheduler(
            'LinearLR',
            start_factor=start,
            end='warm_up',
            by_epoch=True,
            convert_to_iter_based=True,
        ),
        *_main(by_type),
        ']',
        'default_hooks = dict(',
        f'    checkpoint=dict({by_epoch}interval={interval}, '
        "save_best='auto', max_keep_ckpts=2),",
        *(['    logger=dict(log_metric_by_epoch=True),'] if counted else []),
        ')',
        *(['log_processor = dict(by_epoch=True)'] if counted else []),
        _scaling(base),
    ]


def _main(by_type: Mapping[str, Mapping[str, Any]]) -> list[str]:
    cosine = by_type.get('CosineAnnealingLR')
    if cosine is not None:
        lowest = {
            key: cosine[key] for key in ('eta_min', 'eta_min_ratio') if cosine.get(key)
        }
        return _scheduler(
            'CosineAnnealingLR',
            T_max='max_epochs',
            **lowest,
            end='max_epochs',
            by_epoch=True,
            convert_to_iter_based=True,
        )
    steps = by_type.get('MultiStepLR', {})
    end, drops = steps.get('end'), steps.get('milestones', ())
    shares: Sequence[float] = [drop / end for drop in drops] if end else _DROPS
    listed = ', '.join(f'round({share:.3g} * max_epochs)' for share in shares)
    return _scheduler(
        'MultiStepLR',
        gamma=steps.get('gamma', 0.1),
        milestones=f'[{listed}]',
        end='max_epochs',
        by_epoch=True,
    )


def _loop(counted: bool, interval: int) -> list[str]:
    settings = f'max_epochs=max_epochs, val_interval={interval}'
    if not counted:
        return [f'train_cfg = dict({settings})']
    return [
        'train_cfg = dict(',
        f"    _delete_=True, type='EpochBasedTrainLoop', {settings}",
        ')',
    ]


def _scheduler(kind: str, **settings: object) -> list[str]:
    lines = [f"type='{kind}'", *(f'{key}={value}' for key, value in settings.items())]
    return ['    dict(', *(f'        {line},' for line in lines), '    ),']


def _scaling(base: Config) -> str:
    known = 'base_batch_size' in (base.get('auto_scale_lr') or {})
    size = '' if known else ', base_batch_size=16'
    return f'auto_scale_lr = dict(enable=True{size})'

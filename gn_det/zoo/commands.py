"""The commands that reproduce a model's figures, as a reader types them."""

from __future__ import annotations

from pathlib import PurePosixPath

from gn_det.zoo.index import Model, Weights

CHECKPOINTS = 'checkpoints'


def checkpoint_commands(model: Model) -> list[str]:
    """Get the published weights and make a checkpoint of them; empty without weights.

    The checkpoint is `checkpoint_path(model)`.
    """
    weights = model.weights
    if weights is None:
        return []
    commands = [f'python tools/zoo.py download {model.name} --dest {CHECKPOINTS}']
    if weights.needs_conversion:
        commands.append(
            f'python tools/convert.py {_downloaded(weights)} {checkpoint_path(model)} '
            f'--from {weights.format}'
        )
    return commands


def checkpoint_path(model: Model) -> str:
    """Where the commands above leave a checkpoint, or what training leaves."""
    weights = model.weights
    if weights is None:
        last = model.epochs or model.iterations
        unit = 'epoch' if model.epochs else 'iter'
        return f'work_dirs/{model.name}/{unit}_{last}.pth'
    if weights.needs_conversion:
        return f'{CHECKPOINTS}/{model.name}.pth'
    return _downloaded(weights)


def evaluation_commands(model: Model) -> list[str]:
    """Evaluate in one process, and on 8 GPUs."""
    what = f'{model.config} {checkpoint_path(model)}'
    return [f'python tools/test.py {what}', f'tools/dist_test.sh {what} 8']


def training_commands(model: Model) -> list[str]:
    """Train in one process at the scaled learning rate, and on 8 GPUs."""
    return [
        f'python tools/train.py {model.config} --auto-scale-lr',
        f'tools/dist_train.sh {model.config} 8',
    ]


def _downloaded(weights: Weights) -> str:
    return f'{CHECKPOINTS}/{PurePosixPath(weights.url).name}'

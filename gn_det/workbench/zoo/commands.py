"""The commands that reproduce a model's scores, as a reader types them."""

from __future__ import annotations

from gn_det.workbench.zoo.index import Model
from gn_det.workbench.zoo.sources import resolve

CHECKPOINTS = 'checkpoints'


def checkpoint_commands(model: Model) -> list[str]:
    """Get the published weights and make a checkpoint of them; empty without weights.

    The checkpoint is `checkpoint_path(model)`.
    """
    weights = model.weights
    if weights is None:
        return []
    commands = [f'gn-det zoo download {model.name} --dest {CHECKPOINTS}']
    if weights.needs_conversion:
        commands.append(
            f'gn-det convert {_downloaded(model)} {checkpoint_path(model)} '
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
    return _downloaded(model)


def data_commands(model: Model) -> list[str]:
    """Make the data the model is trained and tested on; empty for COCO."""
    return [model.prepare] if model.prepare else []


def evaluation_commands(model: Model) -> list[str]:
    """Evaluate in one process, and on as many GPUs as the training has."""
    what = f'test {model.name} {checkpoint_path(model)}'
    return [f'gn-det {what}', *_in_processes(what, model)]


def training_commands(model: Model) -> list[str]:
    """Train in one process, and on the GPUs the learning rate is meant for.

    One process gets the scaled rate unless the rate is meant for it.
    """
    what = f'train {model.name}'
    scaled = ' --auto-scale-lr' if model.processes > 1 else ''
    return [f'gn-det {what}{scaled}', *_in_processes(what, model)]


def _in_processes(what: str, model: Model) -> list[str]:
    if model.processes == 1:
        return []
    torchrun = f'torchrun --nproc-per-node {model.processes}'
    return [f'{torchrun} -m gn_det {what} --launcher pytorch']


def _downloaded(model: Model) -> str:
    return f'{CHECKPOINTS}/{resolve(model.name).file_name}'

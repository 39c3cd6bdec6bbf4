"""Training that starts from a detector of the zoo, other heads anew."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from gn_det.workbench.zoo.download import download_checkpoint

_SUFFIXES = ('.pkl', '.pt', '.pth', '.safetensors')
_BACKBONE = 'backbone.'


def fetch_start(cfg: Config) -> None:
    """Replace the name of a model in `load_from` by the file of its weights.

    What is a file, looks like one or is an address stays as it is.

    Raises:
        UserError: if the zoo has no such model or no weights of it, or they cannot be
            downloaded.
    """
    start = cfg.get('load_from')
    if cfg.get('resume') or not start or '://' in start:
        return
    if not os.path.isfile(start) and not start.endswith(_SUFFIXES):
        cfg.load_from = str(download_checkpoint(start))


def skip_pretrained_backbone(
    model: torch.nn.Module, state: Mapping[str, torch.Tensor]
) -> None:
    """Fetch no weights for a backbone that a checkpoint is about to fill."""
    wanted = {
        name: value
        for name, value in _plain(model).state_dict().items()
        if name.startswith(_BACKBONE)
    }
    if wanted and all(_fits(value, state.get(name)) for name, value in wanted.items()):
        _plain(model).backbone.init_cfg = None


class StartHook(Hook):
    """Leave out of `load_from` what does not fit the model, and say what that is.

    mmengine would print the whole lists of names; a line says what starts from the
    initial weights and what of the file is not used.
    """

    # Before averages of the weights (EMAHook) are made of the checkpoint.
    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Fill the gaps of the checkpoint with the model's own weights."""
        if runner.cfg.get('resume'):
            return
        given = checkpoint.get('state_dict', checkpoint)
        wanted = _plain(runner.model).state_dict()
        fitting = {k: given[k] for k, v in wanted.items() if _fits(v, given.get(k))}
        runner.logger.info(_start_line(runner.cfg.load_from, wanted, given, fitting))
        # Weights may stand alone in a file, which EMAHook does not expect.
        if given is checkpoint:
            checkpoint.clear()
        checkpoint['state_dict'] = {**wanted, **fitting}


def _plain(model: torch.nn.Module) -> torch.nn.Module:
    return model.module if is_model_wrapper(model) else model


def _fits(wanted: torch.Tensor, given: Any) -> bool:
    return isinstance(given, torch.Tensor) and given.shape == wanted.shape


def _start_line(
    path: str,
    wanted: Mapping[str, torch.Tensor],
    given: Mapping[str, Any],
    fitting: Mapping[str, torch.Tensor],
) -> str:
    parts = [f'Starting from {path}: {len(fitting)} of {len(wanted)} tensors']
    reshaped = [
        f'{name} {tuple(given[name].shape)} for {tuple(value.shape)}'
        for name, value in wanted.items()
        if name in given and name not in fitting
    ]
    if reshaped:
        parts.append(
            f'{len(reshaped)} of another size are dropped and start anew '
            f'({", ".join(reshaped)})'
        )
    missing = [name for name in wanted if name not in given]
    if missing:
        parts.append(f'{len(missing)} it has not start anew ({_modules(missing)})')
    unused = [name for name in given if name not in wanted]
    if unused:
        parts.append(f'{len(unused)} of the file are not used ({_modules(unused)})')
    return '; '.join(parts)


def _modules(names: list[str]) -> str:
    """The modules that tensors belong to, as far as two names deep."""
    return ', '.join(dict.fromkeys('.'.join(n.split('.')[:2]) for n in names))

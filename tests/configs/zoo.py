"""The leaf configs of the checkout: loaded once each, built without memory."""

from __future__ import annotations

import copy
import functools
import os
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn

from gn_det.workbench.inputs.config import load_config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
LEAVES = tuple(
    sorted(
        path.relative_to(CONFIGS).as_posix()
        for path in CONFIGS.rglob('*.py')
        if '_base_' not in path.parts
    )
)


@functools.cache
def _loaded(leaf: str) -> Config:
    return load_config(os.fspath(CONFIGS / leaf))


def load(leaf: str) -> Config:
    """The resolved config, the caller's to change."""
    return copy.deepcopy(_loaded(leaf))


def build(cfg: Config) -> nn.Module:
    """The detector on the meta device: names, shapes and types, no values."""
    with torch.device('meta'):
        return MODELS.build(cfg.model)


@functools.cache
def built(leaf: str) -> nn.Module:
    """The detector of a leaf, not to be changed."""
    return build(load(leaf))


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shape by state-dict key."""
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}

"""A small detector with random weights, as a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules

from gn_det.workbench.inputs.config import load_config
from tests.running import CONFIG, REPOSITORY


@pytest.fixture(scope='session')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the quickstart's model; it finds something everywhere."""
    register_all_modules()
    cfg = load_config(str(REPOSITORY / CONFIG))
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    path = tmp_path_factory.mktemp('weights') / 'random.pth'
    meta = dict(dataset_meta=dict(CLASSES=tuple(cfg.metainfo.classes)))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return path

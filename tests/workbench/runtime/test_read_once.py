"""A checkpoint is read once in a run, whatever is looked up in it."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules

from gn_det.workbench.inputs.config import load_config
from gn_det.workbench.loading import files
from gn_det.workbench.runtime import runner
from tests.running import CONFIG, REPOSITORY
from tests.workbench.loading.evil import program


@pytest.fixture
def reads(monkeypatch):
    """Names of the files that were unpickled."""
    found = []
    original = files.restricted.load_torch

    def load(file, **options):
        found.append(file.name)
        return original(file, **options)

    monkeypatch.setattr(files.restricted, 'load_torch', load)
    return found


@pytest.fixture
def cfg(shapes, tmp_path):
    cfg = load_config(
        str(REPOSITORY / CONFIG), {'data_root': str(shapes)}, str(tmp_path / 'work')
    )
    cfg.launcher = 'none'
    cfg.train_cfg.max_epochs = 1
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.val_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    return cfg


@pytest.fixture
def checkpoint(cfg, tmp_path):
    """As if the one epoch of the config had been trained."""
    register_all_modules()
    model = MODELS.build(deepcopy(cfg.model))
    text = program(tmp_path / 'pwned')
    content = dict(
        state_dict=model.state_dict(),
        meta=dict(epoch=1, iter=3, cfg=text, config=text),
        message_hub=dict(log_scalars={}, runtime_info=dict(cfg=text), resumed_keys={}),
    )
    path = tmp_path / 'trained.pth'
    torch.save(content, path)
    return str(path)


def test_by_training_that_goes_on(cfg, checkpoint, reads, tmp_path):
    runner.set_resume(cfg, checkpoint)
    runner.run_training(cfg)
    assert reads == [checkpoint]
    assert not (tmp_path / 'pwned').exists()


def test_by_a_test(cfg, checkpoint, reads, tmp_path):
    cfg.load_from = checkpoint
    runner.run_test(cfg)
    assert reads == [checkpoint]
    assert not (tmp_path / 'pwned').exists()

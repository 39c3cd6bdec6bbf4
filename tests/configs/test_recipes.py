"""Schedules, learning-rate rules and the settings of detectron2's recipes."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from gn_det.workbench.runtime.runner import enable_lr_scaling
from gn_det.workbench.zoo import load_index
from gn_det.workbench.zoo.recipe import rate_drops
from tests.configs.zoo import LEAVES, load

MODELS = {model.config.removeprefix('configs/'): model for model in load_index()}
# Name in the metafile and unit → length, drops, end of the warm-up (published).
SCHEDULES = {
    ('1x', 'epochs'): (12, [8, 11], 500),
    ('2x', 'epochs'): (24, [16, 22], 500),
    ('ms-2x', 'epochs'): (24, [16, 22], 500),
    ('20-23-24e', 'epochs'): (24, [20, 23], 500),
    ('3x', 'epochs'): (36, [28, 34], 500),
    ('6x', 'epochs'): (73, [65, 71], 500),
    ('2x', 'iterations'): (180_000, [120_000, 160_000], 500),
    ('3x', 'iterations'): (270_000, [210_000, 250_000], 500),
    ('ms-3x', 'iterations'): (270_000, [210_000, 250_000], 1000),
    ('8xb8-ms-9x', 'iterations'): (202_500, [187_500, 197_500], 1000),
}
IN_ITERATIONS = [leaf for leaf in LEAVES if MODELS[leaf].iterations]
ON_COCO = [leaf for leaf in LEAVES if not leaf.startswith('quickstart')]
MS_3X = 'gn/mask-rcnn_r50_fpn_gn-all_ms-3x_coco.py'
SCRATCH_MS_3X = 'scratch/mask-rcnn_r50-scratch_fpn_gn-all_ms-3x_coco.py'
SCRATCH_9X = 'scratch/mask-rcnn_r50-scratch_fpn_gn-all_8xb8-ms-9x_coco.py'


@pytest.mark.parametrize('leaf', LEAVES)
def test_metafile_and_config_agree_on_the_length(leaf):
    model, loop = MODELS[leaf], load(leaf).train_cfg
    assert model.epochs == loop.get('max_epochs')
    assert model.iterations == loop.get('max_iters')


@pytest.mark.parametrize('leaf', ON_COCO)
def test_schedule_is_the_published_one(leaf):
    model, cfg = MODELS[leaf], load(leaf)
    unit = 'epochs' if model.epochs else 'iterations'
    length, falls, warm_up = SCHEDULES[model.schedule, unit]
    assert (model.epochs or model.iterations) == length
    assert rate_drops(cfg) == falls
    linear, steps = cfg.param_scheduler
    assert (linear.type, linear.begin, linear.end) == ('LinearLR', 0, warm_up)
    assert not linear.by_epoch
    assert (steps.end, steps.gamma) == (length, 0.1)
    assert steps.by_epoch == (unit == 'epochs')
    loop = 'EpochBasedTrainLoop' if unit == 'epochs' else 'IterBasedTrainLoop'
    assert cfg.train_cfg.type == loop
    assert cfg.log_processor.by_epoch == (unit == 'epochs')


@pytest.mark.parametrize('leaf', LEAVES)
def test_rate_is_meant_for_the_processes_of_the_metafile(leaf):
    cfg = load(leaf)
    images = MODELS[leaf].processes * cfg.train_dataloader.batch_size
    assert cfg.auto_scale_lr.base_batch_size == images


@pytest.mark.parametrize('leaf', LEAVES)
@pytest.mark.parametrize('gpus', [1, 4, 8, 16])
def test_auto_scale_lr_is_the_linear_rule(leaf, gpus):
    """On COCO 0.02 for 16 images, whatever the batch: 0.00125 for each."""
    cfg = load(leaf)
    parameter = torch.nn.Parameter(torch.ones(1))
    wrapper = OptimWrapper(torch.optim.SGD([parameter], cfg.optim_wrapper.optimizer.lr))
    runner = SimpleNamespace(
        world_size=gpus,
        _train_dataloader=cfg.train_dataloader,
        param_schedulers=cfg.param_scheduler,
        logger=logging.getLogger('scale_lr'),
    )
    Runner.scale_lr(runner, wrapper, dict(cfg.auto_scale_lr, enable=True))
    images = gpus * cfg.train_dataloader.batch_size
    per_image = 0.00125 if leaf in ON_COCO else 0.001 / 4
    assert wrapper.param_groups[0]['lr'] == pytest.approx(per_image * images)


@pytest.mark.parametrize('leaf', IN_ITERATIONS)
@pytest.mark.parametrize('gpus', [1, 4, 8, 16])
def test_as_many_images_whatever_the_gpus(leaf, gpus, monkeypatch):
    """Of the training, its warm-up, between drops, validations and checkpoints."""
    monkeypatch.setenv('WORLD_SIZE', str(gpus))
    published, cfg = load(leaf), load(leaf)
    cfg.launcher = 'pytorch'
    enable_lr_scaling(cfg)
    batch = published.auto_scale_lr.base_batch_size
    real = gpus * cfg.train_dataloader.batch_size
    assert in_images(cfg, real) == in_images(published, batch)
    assert cfg.auto_scale_lr.enable


def in_images(cfg: Config, batch: int) -> list[int]:
    warm_up, steps = cfg.param_scheduler
    counts = [
        cfg.train_cfg.max_iters,
        cfg.train_cfg.val_interval,
        cfg.default_hooks.checkpoint.interval,
        warm_up.end,
        steps.end,
        *steps.milestones,
    ]
    return [count * batch for count in counts]


@pytest.mark.parametrize('leaf', ON_COCO)
def test_optimiser_is_detectrons(leaf):
    optimizer = load(leaf).optim_wrapper.optimizer
    assert (optimizer.type, optimizer.momentum) == ('SGD', 0.9)
    assert optimizer.weight_decay == 1e-4


@pytest.mark.parametrize(
    ('leaf', 'std', 'batch', 'rate'),
    [
        (MS_3X, [1.0, 1.0, 1.0], 2, 0.02),
        (SCRATCH_MS_3X, [1.0, 1.0, 1.0], 2, 0.02),
        (SCRATCH_9X, [57.375, 57.12, 58.395], 8, 0.08),
    ],
    ids=['3x', 'scratch-3x', 'scratch-9x'],
)
def test_detectron2s_recipe(leaf, std, batch, rate):
    """As its Misc/*_gn.yaml and their base have it."""
    cfg = load(leaf)
    pixels = cfg.model.data_preprocessor
    assert (pixels.mean, pixels.std) == ([103.53, 116.28, 123.675], std)
    assert pixels.bgr_to_rgb is False
    loader = cfg.train_dataloader
    assert (loader.batch_size, loader.sampler.type) == (batch, 'InfiniteSampler')
    resize = next(
        step
        for step in loader.dataset.pipeline
        if step.type in ('RandomChoiceResize', 'Resize')
    )
    shorts = (640, 672, 704, 736, 768, 800)
    assert [tuple(scale) for scale in resize.scales] == [(1333, s) for s in shorts]
    assert resize.keep_ratio
    assert cfg.optim_wrapper.optimizer.lr == rate
    assert cfg.optim_wrapper.paramwise_cfg == dict(norm_decay_mult=0.0)
    frozen = cfg.model.backbone.frozen_stages
    assert frozen == (-1 if 'scratch' in leaf else 1)
    assert cfg.model.rpn_head.loss_bbox.type == 'L1Loss'
    assert cfg.model.roi_head.bbox_head.loss_bbox.type == 'L1Loss'
    test = cfg.val_dataloader.dataset.pipeline
    assert next(s for s in test if s.type == 'Resize').scale == (1333, 800)


def test_scales_of_the_multi_scale_pipeline_are_drawn():
    """One image through the training pipeline, many times, has all six short sides."""
    steps = load(MS_3X).train_dataloader.dataset.pipeline
    resize = TRANSFORMS.build(next(s for s in steps if s.type == 'RandomChoiceResize'))
    image = np.zeros((480, 640, 3), np.uint8)
    sides = {
        min(resize(dict(img=image, img_shape=image.shape[:2]))['img_shape'])
        for _ in range(80)
    }
    assert sides == {640, 672, 704, 736, 768, 800}

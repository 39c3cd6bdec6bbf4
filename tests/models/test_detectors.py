"""The detector types of the configs: fused however they are built."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.runner import Runner

import gn_det  # noqa: F401 - before mmdet, which needs operators of mmcv
from gn_det.fusion import FusedModule, fuse
from gn_det.models import FusedCascadeRCNN, FusedFasterRCNN, FusedMaskRCNN
from gn_det.ops.recompute import state
from gn_det.workbench.inputs.config import load_config
from tests.fusion.detectors import (
    CONFIGS,
    R18,
    batch,
    fused,
    gradients,
    losses,
    model_config,
    pair,
    predictions,
    randomise,
    stock,
)


@pytest.fixture(autouse=True, scope='module')
def single_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def cfg(tmp_path):
    cfg = load_config(str(CONFIGS / R18), work_dir=str(tmp_path))
    cfg.model.type = 'FusedMaskRCNN'
    return cfg


@pytest.fixture
def checkpoint(cfg, tmp_path):
    """Weights as the stock model saves them."""
    stock = MODELS.build(ConfigDict(cfg.model, type='MaskRCNN'))
    randomise(stock)
    path = str(tmp_path / 'stock.pth')
    meta = {'dataset_meta': {'classes': tuple(cfg.metainfo.classes)}}
    torch.save({'state_dict': stock.state_dict(), 'meta': meta}, path)
    return path


def assert_fused(model) -> None:
    assert type(model) is FusedMaskRCNN
    fused_blocks = [m for m in model.modules() if isinstance(m, FusedModule)]
    # The backbone, its eight blocks, the neck's and heads' ConvModules.
    assert len(fused_blocks) >= 1 + 8 + 8


def test_built_from_the_registry(cfg):
    assert_fused(MODELS.build(cfg.model))


def test_built_by_the_runner(cfg):
    for part in ('val', 'test'):
        for key in (f'{part}_dataloader', f'{part}_evaluator', f'{part}_cfg'):
            cfg[key] = None
    assert_fused(Runner.from_cfg(cfg).model)


def test_built_by_init_detector_and_the_inferencer(cfg, checkpoint):
    # After gn_det, which gives mmdet the operators it looks for at import.
    from mmdet.apis import DetInferencer, inference_detector, init_detector

    # Inference on an array puts another loader into the config.
    model = init_detector(copy.deepcopy(cfg), checkpoint, device='cpu')
    assert_fused(model)
    weights = torch.load(checkpoint)['state_dict']
    name = 'backbone.gn1.weight'
    assert torch.equal(model.state_dict()[name], weights[name])
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    found = inference_detector(model, image).pred_instances
    inferencer = DetInferencer(cfg, checkpoint, device='cpu', show_progress=False)
    assert_fused(inferencer.model)
    (said,) = inferencer(image, no_save_vis=True)['predictions']
    assert len(found) > 0
    np.testing.assert_allclose(said['scores'], found.scores, rtol=0, atol=1e-5)


def test_the_report_is_logged_in_one_line(cfg, monkeypatch):
    lines = []
    monkeypatch.setattr(
        'gn_det.models.detectors.print_log', lambda line, **_: lines.append(line)
    )
    MODELS.build(cfg.model)
    assert len(lines) == 1
    assert '\n' not in lines[0]
    assert lines[0].startswith('36 Group Norm layers')


def test_recompute_gives_the_same_gradients_and_predictions():
    models = [fused(model_config(R18), recompute=r) for r in (False, True)]
    randomise(models[0])
    models[1].load_state_dict(models[0].state_dict())
    data = batch(64, 96)
    found = []
    for model, recompute in zip(models, (False, True), strict=True):
        seen = []
        model.backbone.layer1.register_forward_hook(
            lambda *_, seen=seen: seen.append(state.region is not None)
        )
        slopes = gradients(model, losses(model, data)['loss'])
        assert seen == [recompute]
        model.eval()
        found.append((slopes, predictions(model, data)))
        assert seen[1:] == [False]
    (slopes, results), (their_slopes, their_results) = found
    for name, slope in slopes.items():
        assert torch.equal(slope, their_slopes[name]), name
    for ours, theirs in zip(results, their_results, strict=True):
        assert torch.equal(ours.bboxes, theirs.bboxes)


@pytest.mark.parametrize('built', [True, False])
def test_losses_asked_for_by_a_detector_around_it_recompute_too(built):
    """As mmdet's semi-supervised detectors ask."""
    if built:
        model = fused(model_config(R18), recompute=True)
    else:
        model = stock(model_config(R18))
        fuse(model, recompute=True)
    seen = []
    model.backbone.layer1.register_forward_hook(
        lambda *_: seen.append(state.region is not None)
    )
    data = model.data_preprocessor(batch(64, 96), training=True)
    model.loss(data['inputs'], data['data_samples'])
    assert seen == [True]


def test_channels_last_reaches_weights_and_maps():
    model = fused(model_config(R18), channels_last=True)
    weight = model.backbone.layer1[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    for level in model.extract_feat(torch.randn(1, 3, 64, 96)):
        assert level.is_contiguous(memory_format=torch.channels_last)


def test_settings_change_no_weight_and_no_default():
    theirs, ours = pair(R18)
    assert type(ours) is FusedMaskRCNN
    assert not ours.channels_last
    both = fused(model_config(R18), recompute=True, channels_last=True)
    assert list(both.state_dict()) == list(theirs.state_dict())


@pytest.mark.parametrize(
    ('kind', 'name'),
    [
        (FusedFasterRCNN, 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'),
        (FusedCascadeRCNN, 'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py'),
    ],
)
def test_other_detectors(kind, name):
    model = get_config(f'mmdet::{name}').model
    norm_cfg = dict(type='GN', num_groups=8)
    model.type = kind.__name__
    model.backbone.update(norm_cfg=norm_cfg, init_cfg=None, base_channels=16)
    model.backbone.stem_channels = 16
    model.neck.update(norm_cfg=norm_cfg, in_channels=[64, 128, 256, 512])
    built = MODELS.build(model)
    assert type(built) is kind
    assert sum(isinstance(m, FusedModule) for m in built.modules()) >= 17

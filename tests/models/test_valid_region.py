"""`valid_region`: what an image is batched with changes neither boxes nor masks."""

from __future__ import annotations

import copy

import pytest
import torch
from mmdet.structures import DetDataSample

import gn_det  # noqa: F401 - before mmdet, which needs operators of mmcv
from tests.fusion.detectors import (
    R18,
    R50,
    batch,
    fused,
    gradients,
    losses,
    model_config,
    predictions,
    randomise,
)

SIZES = [
    (64, 90),
    (70, 50),
    (33, 64),
    (96, 96),
    (60, 40),
    (64, 32),
    (96, 30),
    (40, 40),
]


def images(sizes):
    parts = [batch(*size, images=1, seed=i) for i, size in enumerate(sizes)]
    keys = ('inputs', 'data_samples')
    return {key: [part[key][0] for part in parts] for key in keys}


def one(data, i):
    return copy.deepcopy({key: [values[i]] for key, values in data.items()})


def detector(leaf, **settings):
    torch.manual_seed(0)
    config = model_config(leaf)
    # As many proposals of the smallest image as of the largest.
    config.test_cfg.rpn.max_per_img = 8
    model = fused(config, **settings)
    randomise(model)
    return model.eval()


def outputs(model, data):
    """Per image what the RPN proposes and the heads say of it: boxes, scores, masks.

    In float64, so that nothing hangs on rounding.
    """
    model = model.double()
    data = model.data_preprocessor(copy.deepcopy(data))
    with torch.no_grad():
        ((classes, boxes, masks),) = model(**data, mode='tensor')
    count = len(data['inputs'])
    parts = (part.chunk(count) for part in (classes, boxes, masks))
    return list(zip(*parts, strict=True))


def furthest(model, data):
    """The greatest difference between an image alone and in the batch."""
    worst = 0.0
    for i, together in enumerate(outputs(model, data)):
        (alone,) = outputs(model, one(data, i))
        for ours, theirs in zip(together, alone, strict=True):
            assert ours.shape == theirs.shape
            worst = max(worst, (ours - theirs).abs().max().item())
    return worst


@pytest.mark.parametrize('channels_last', [False, True], ids=['nchw', 'nhwc'])
def test_eight_images_of_eight_sizes(channels_last):
    model = detector(R50, valid_region=True, channels_last=channels_last)
    assert furthest(model, images(SIZES)) <= 1e-9


def test_without_it_the_batch_changes_what_the_heads_say():
    assert furthest(detector(R18), images(SIZES[:3])) > 0.1


def test_boxes_and_masks_in_float32():
    model, data = detector(R18, valid_region=True), images(SIZES[:3])
    for i, together in enumerate(predictions(model, copy.deepcopy(data))):
        (alone,) = predictions(model, one(data, i))
        assert len(alone) > 0
        assert torch.equal(alone.labels, together.labels)
        torch.testing.assert_close(alone.scores, together.scores, rtol=0, atol=1e-4)
        torch.testing.assert_close(alone.bboxes, together.bboxes, rtol=0, atol=1e-2)
        assert (alone.masks != together.masks).float().mean() <= 1e-3


@pytest.mark.parametrize('part', ['rpn', 'neck'])
def test_parts_without_a_norm(part):
    config = model_config(R18)
    if part == 'neck':
        config.neck.norm_cfg = None
    else:
        config.rpn_head.num_convs = 2
    config.test_cfg.rpn.max_per_img = 8
    model = fused(config, valid_region=True).eval()
    randomise(model)
    assert furthest(model, images(SIZES[:3])) <= 1e-8


@pytest.mark.parametrize('recompute', [False, True])
def test_maps_and_gradients_in_training(recompute):
    """Of the maps alone: what the samplers take depends on the batch."""
    model = detector(R18, valid_region=True, recompute=recompute).double().train()
    data = images(SIZES[:3])
    together = slopes_of_maps(model, data)
    alone = [slopes_of_maps(model, one(data, i)) for i in range(3)]
    assert together.keys() == alone[0].keys()
    for name, slope in together.items():
        total = sum(part[name] for part in alone)
        assert (slope - total).abs().max() <= 1e-9 * total.abs().max(), name


def slopes_of_maps(model, data):
    data = model.data_preprocessor(copy.deepcopy(data), training=True)
    model._announce(data['inputs'], data['data_samples'])
    maps = model.extract_feat(data['inputs'])
    cut = (model.regions.cut(x, i).square().sum() for x in maps for i in range(len(x)))
    return {k: v.clone() for k, v in gradients(model, sum(cut)).items()}


def test_a_training_step_and_gradient_checkpoints():
    config = model_config(R18)
    found = []
    weights = detector(R18).state_dict()
    for with_cp in (False, True):
        config.backbone.with_cp = with_cp
        model = fused(config, valid_region=True).double()
        model.load_state_dict(weights)
        loss = losses(model.train(), images(SIZES[:2]))['loss']
        found.append({k: v.clone() for k, v in gradients(model, loss).items()})
    for name, slope in found[0].items():
        assert torch.isfinite(slope).all()
        torch.testing.assert_close(found[1][name], slope)


def test_copies_keep_to_regions_of_their_own():
    model = detector(R18, valid_region=True)
    other = copy.deepcopy(model)
    assert other.regions is not model.regions
    assert other.backbone.gn1.regions is other.regions
    data = images(SIZES[:2])
    for ours, theirs in zip(
        predictions(model, copy.deepcopy(data)), predictions(other, data), strict=True
    ):
        assert torch.equal(ours.bboxes, theirs.bboxes)


def test_images_without_samples_fill_the_batch():
    """As a backbone's user or an export calls it, after a batch that was announced."""
    model = detector(R18, valid_region=True)
    predictions(model, images(SIZES[:2]))
    x = torch.randn(2, 3, 128, 96)
    with torch.no_grad():
        theirs = detector(R18).extract_feat(x)
        for ours, expected in zip(model.extract_feat(x), theirs, strict=True):
            torch.testing.assert_close(ours, expected)


def test_padding_to_no_multiple_of_the_stride_is_refused():
    config = model_config(R18)
    config.data_preprocessor.pad_size_divisor = 1
    model = fused(config, valid_region=True)
    with pytest.raises(ValueError, match='set pad_size_divisor=32'):
        predictions(model.eval(), images(SIZES[:2]))


def test_samples_need_no_annotations():
    model = detector(R18, valid_region=True)
    inputs = [torch.zeros(3, 64, 64, dtype=torch.uint8)]
    meta = {'img_shape': (64, 64), 'ori_shape': (64, 64), 'scale_factor': (1.0, 1.0)}
    sample = DetDataSample(metainfo=meta)
    assert len(predictions(model, {'inputs': inputs, 'data_samples': [sample]})) == 1

"""A model with Group Norm predicts the same whatever the test batch size."""

from __future__ import annotations

import json
import pickle

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dist import utils as dist_utils

from gn_det.workbench.errors import UserError
from gn_det.workbench.evaluation.same_shape import (
    SameShapeBatchSampler,
    ShapeOrderedSampler,
    batch_by_shape,
)
from gn_det.workbench.inputs.config import load_config
from gn_det.workbench.runtime import runner
from tests.running import CONFIG, REPOSITORY

# Convolutions add in another order for another batch: 16 ulp of a coordinate near 64.
ROUNDING = 16 * float(np.spacing(np.float32(64)))
SIZES = [(64, 64), (40, 64), (64, 40), (64, 64), (40, 64), (63, 64), (40, 63)]


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """A COCO set of seven images of noise, of five sizes."""
    root = tmp_path_factory.mktemp('sizes')
    (root / 'annotations').mkdir()
    (root / 'val').mkdir()
    random = np.random.default_rng(0)
    records = []
    for number, (height, width) in enumerate(SIZES, 1):
        name = f'{number}.png'
        pixels = random.integers(0, 255, (height, width, 3), np.uint8)
        cv2.imwrite(str(root / 'val' / name), pixels)
        records.append(dict(id=number, file_name=name, height=height, width=width))
    classes = ('circle', 'square', 'triangle')
    box = dict(category_id=1, bbox=[4, 4, 20, 20], area=400, iscrowd=0)
    outline = [[4, 4, 24, 4, 24, 24, 4, 24]]
    content = dict(
        images=records,
        categories=[dict(id=n, name=name) for n, name in enumerate(classes, 1)],
        annotations=[
            dict(id=r['id'], image_id=r['id'], segmentation=outline, **box)
            for r in records
        ],
    )
    (root / 'annotations' / 'instances_val.json').write_text(json.dumps(content))
    return root


@pytest.fixture
def cfg(images, tmp_path) -> Config:
    found = load_config(
        str(REPOSITORY / CONFIG), dict(data_root=images), str(tmp_path / 'work')
    )
    found.launcher = 'none'
    few = dict(rpn=dict(nms_pre=50, max_per_img=20), rcnn=dict(max_per_img=5))
    found.merge_from_dict(dict(model=dict(test_cfg=few)))
    return found


def predictions(cfg: Config, batch_size: int, checkpoint, tmp_path) -> dict:
    cfg.test_dataloader.batch_size = batch_size
    cfg.load_from = str(checkpoint)
    dumped = tmp_path / f'{batch_size}.pkl'
    runner.run_test(cfg, str(dumped))
    records = pickle.loads(dumped.read_bytes())
    assert sorted(r['img_id'] for r in records) == list(range(1, len(SIZES) + 1))
    return {r['img_id']: r['pred_instances'] for r in records}


@pytest.mark.parametrize('by_shape', [True, False])
def test_predictions_at_batch_size_one_and_three(cfg, tmp_path, monkeypatch, by_shape):
    torch.manual_seed(0)
    checkpoint = tmp_path / 'model.pth'
    torch.save(MODELS.build(cfg.model).state_dict(), checkpoint)
    alone = predictions(cfg.copy(), 1, checkpoint, tmp_path)
    if not by_shape:
        monkeypatch.setattr(runner, 'batch_by_shape', lambda cfg, split: None)
    together = predictions(cfg.copy(), 3, checkpoint, tmp_path)
    differences = [
        (alone[i]['scores'] - together[i]['scores']).abs().max().item() for i in alone
    ]
    assert all(len(found['scores']) == 5 for found in alone.values())
    if by_shape:
        assert max(differences) < 1e-6
        for i in alone:
            torch.testing.assert_close(
                alone[i]['bboxes'], together[i]['bboxes'], rtol=0, atol=ROUNDING
            )
    else:
        # What padding to the larger neighbour does: the test above can fail.
        assert max(differences) > 1e-4


def test_batches_hold_one_padded_shape_and_every_image(cfg):
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    batches = list(SameShapeBatchSampler(ShapeOrderedSampler(dataset, 32), 2))
    # The longer side becomes 128: 40 × 64 and 40 × 63 end as 96 × 128, 63 × 64 is full.
    assert batches == [[1, 4], [6], [2], [0, 3], [5]]


@pytest.mark.parametrize('world', [2, 3, 5])
def test_ranks_together_have_every_image_in_turn(cfg, monkeypatch, world):
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    ranks = []
    for rank in range(world):
        monkeypatch.setattr(
            'mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, world)
        )
        monkeypatch.setattr(dist_utils, 'get_dist_info', lambda: (0, 1))
        sampler = ShapeOrderedSampler(dataset, 32)
        batches = SameShapeBatchSampler(sampler, 2)
        ranks.append([index for batch in batches for index in batch])
        assert len(ranks[-1]) == len(sampler)
    # As mmengine puts collected results together: in turn, cut at the data set's size.
    collected = [index for turn in zip(*ranks, strict=True) for index in turn]
    assert sorted(collected[: len(dataset)]) == list(range(len(dataset)))


def test_batches_of_one_are_left_alone(cfg):
    before = cfg.test_dataloader.sampler
    batch_by_shape(cfg, 'test')
    assert cfg.test_dataloader.sampler == before
    assert 'batch_sampler' not in cfg.test_dataloader


def test_another_sampler_is_kept_and_said(cfg, capsys):
    cfg.test_dataloader.batch_size = 4
    cfg.test_dataloader.sampler = dict(type='ClassAwareSampler')
    batch_by_shape(cfg, 'test')
    assert cfg.test_dataloader.sampler.type == 'ClassAwareSampler'
    said = capsys.readouterr().out
    assert 'test_dataloader.batch_size=4' in said
    assert 'Group Norm sees' in said


def test_a_transform_that_needs_the_image_is_named(cfg):
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    del dataset.pipeline.transforms[1].scale
    with pytest.raises(UserError, match=r'Resize.*set batch_size=1'):
        ShapeOrderedSampler(dataset, 32)

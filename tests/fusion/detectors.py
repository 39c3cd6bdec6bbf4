"""Pairs of detectors with the same weights, stock and fused, and images for them."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

from gn_det.workbench.inputs.config import load_config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
R18 = 'quickstart/mask-rcnn_r18_fpn_gn-all_shapes.py'
R50 = 'gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py'
R101 = 'gn/mask-rcnn_r101_fpn_gn-all_2x_coco.py'
CLASSES = 3


def model_config(leaf: str) -> ConfigDict:
    """The model of a config, from random weights and with few classes and RoIs."""
    model = load_config(str(CONFIGS / leaf)).model
    model.backbone.init_cfg = None
    model.backbone.frozen_stages = -1
    # One Mask R-CNN, whichever norms: `stock` and `fused` set what differs.
    model.type = 'FusedMaskRCNN'
    for head in ('bbox_head', 'mask_head'):
        model.roi_head[head].num_classes = CLASSES
    # The gradient of an L1 loss jumps where a prediction meets its target.
    for head in (model.rpn_head, model.roi_head.bbox_head):
        head.loss_bbox = dict(type='SmoothL1Loss', beta=1.0)
    for stage in (model.train_cfg.rpn_proposal, model.test_cfg.rpn):
        stage.update(nms_pre=100, max_per_img=20)
    model.train_cfg.rcnn.sampler.num = 16
    model.test_cfg.rcnn.max_per_img = 10
    return model


def stock(model: ConfigDict) -> nn.Module:
    """mmdet's own detector for the config of a fused one."""
    register_all_modules()
    model = copy.deepcopy(model)
    model.type = 'MaskRCNN'
    _use_stock_norms(model)
    return MODELS.build(model)


def _use_stock_norms(value: object) -> None:
    """Every FusedGN in a config becomes mmcv's GN, in place."""
    if isinstance(value, dict):
        if value.get('type') == 'FusedGN':
            value['type'] = 'GN'
        value = value.values()
    elif not isinstance(value, list | tuple):
        return
    for item in value:
        _use_stock_norms(item)


def fused(model: ConfigDict, **settings: object) -> nn.Module:
    """The detector the config names."""
    register_all_modules()
    return MODELS.build(ConfigDict(copy.deepcopy(model), **settings))


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Random norms, as defaults hide errors, and heads that are sure of what they say.

    Scores far from each other keep the discrete choices (top k, NMS) from hanging on
    rounding.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            owner = model.get_submodule(name.rpartition('.')[0])
            if isinstance(owner, nn.GroupNorm):
                parameter.copy_(0.2 * noise + (1 if name.endswith('weight') else 0))
                if 'gn3' in name:
                    # Branches that add a little: rounding grows less on its way down.
                    parameter.mul_(0.25)
            elif parameter.ndim < 2:
                parameter.add_(0.1 * noise)
            else:
                parameter.copy_(noise * (2 / parameter[0].numel()) ** 0.5)


def pair(leaf: str, **settings: object) -> tuple[nn.Module, nn.Module]:
    """The stock and the fused detector of a config with the same random weights."""
    config = model_config(leaf)
    ours, theirs = fused(config, **settings), stock(config)
    randomise(theirs)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def batch(height: int, width: int, images: int = 2, seed: int = 0) -> dict:
    """What a dataloader gives: noisy images with boxes and masks of three objects."""
    random = np.random.default_rng(seed)
    inputs, samples = [], []
    for _ in range(images):
        inputs.append(
            torch.from_numpy(random.integers(0, 256, (3, height, width), np.uint8))
        )
        size = random.uniform(0.3, 0.6, (3, 2)) * (width, height)
        start = random.uniform(0, 1, (3, 2)) * ((width, height) - size)
        boxes = np.concatenate([start, start + size], 1)
        masks = np.zeros((3, height, width), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
            mask[y1:y2, x1 : (x1 + x2) // 2] = 1
        truth = InstanceData(
            bboxes=torch.from_numpy(boxes).float(),
            labels=torch.from_numpy(random.integers(0, CLASSES, 3)),
            masks=BitmapMasks(masks, height, width),
        )
        sample = DetDataSample(
            metainfo={
                'img_shape': (height, width),
                'ori_shape': (height, width),
                'scale_factor': (1.0, 1.0),
            },
            gt_instances=truth,
        )
        samples.append(sample)
    return {'inputs': inputs, 'data_samples': samples}


def losses(model: nn.Module, data: dict, seed: int = 0) -> dict[str, Tensor]:
    """The losses of one training step, `loss` their sum; samplers start at `seed`."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    data = model.data_preprocessor(data, training=True)
    total, parts = model.parse_losses(model(**data, mode='loss'))
    return {**parts, 'loss': total}


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """The gradient of every parameter that has one."""
    model.zero_grad()
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def predictions(model: nn.Module, data: dict) -> list[InstanceData]:
    """The detections of each image."""
    with torch.no_grad():
        data = model.data_preprocessor(data, training=False)
        samples = model(**data, mode='predict')
    return [sample.pred_instances for sample in samples]


@contextlib.contextmanager
def given_proposals(model: nn.Module, data: dict, count: int = 12) -> Iterator[None]:
    """The RPN's choice replaced by boxes around the truth.

    What follows is then a continuous function of the weights, so that it can be
    compared between precisions, where a top k or an NMS would choose otherwise.
    """
    generator = torch.Generator().manual_seed(3)
    dtype = next(model.parameters()).dtype
    proposals = []
    for sample in data['data_samples']:
        height, width = sample.img_shape
        truth = sample.gt_instances.bboxes
        truth = truth.repeat(count // len(truth), 1)
        boxes = truth + 6 * torch.randn(truth.shape, generator=generator)
        corners = boxes.view(-1, 2, 2).sort(1).values
        corners = corners.clamp(torch.zeros(2), torch.tensor([width, height]) - 1.0)
        corners[:, 1] += 1
        proposals.append(
            InstanceData(
                bboxes=corners.flatten(1).to(dtype),
                scores=torch.rand(len(truth), generator=generator).to(dtype),
                labels=torch.zeros(len(truth), dtype=torch.long),
            )
        )
    model.rpn_head.predict_by_feat = lambda *args, **kwargs: [
        InstanceData(**dict(p.items())) for p in proposals
    ]
    try:
        yield
    finally:
        del model.rpn_head.predict_by_feat

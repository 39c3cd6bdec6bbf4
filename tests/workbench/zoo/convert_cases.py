"""Made-up weight files with the published names and shapes, every value its own."""

from __future__ import annotations

import csv
import os
import pickle
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gn_det.workbench.inputs.config import load_config

DATA = Path(__file__).parent / 'data'
CONFIGS = Path(__file__).resolve().parents[3] / 'configs'
BACKBONE_LIST = DATA / 'detectron_r50_gn_blobs.tsv'
DETECTOR_LIST = DATA / 'detectron_mask_rcnn_r50_gn_blobs.tsv'

# Blobs that are in the published files beside the weights.
BESIDE = {
    'conv1_w_momentum': (64, 3, 7, 7),
    'fc6_b_momentum': (1024,),
    'pred_w': (1000, 2048),
    'pred_b': (1000,),
    'lr': (1,),
}

# Detectron's blob → mmdet's key, read from Detectron's and mmdet's model code, in the
# direction opposite to the converter's.
_RULES = (
    (r'conv1', 'backbone.conv1', 'backbone.gn1'),
    (
        r'res(\d)_(\d+)_branch2([abc])',
        lambda m: f'backbone.layer{int(m[1]) - 1}.{m[2]}.conv{" abc".index(m[3])}',
        lambda m: f'backbone.layer{int(m[1]) - 1}.{m[2]}.gn{" abc".index(m[3])}',
    ),
    (
        r'res(\d)_0_branch1',
        lambda m: f'backbone.layer{int(m[1]) - 1}.0.downsample.0',
        lambda m: f'backbone.layer{int(m[1]) - 1}.0.downsample.1',
    ),
    (
        r'fpn_inner_res(\d)_\d+_sum(?:_lateral)?',
        lambda m: f'neck.lateral_convs.{int(m[1]) - 2}.conv',
        lambda m: f'neck.lateral_convs.{int(m[1]) - 2}.gn',
    ),
    (
        r'fpn_res(\d)_\d+_sum',
        lambda m: f'neck.fpn_convs.{int(m[1]) - 2}.conv',
        lambda m: f'neck.fpn_convs.{int(m[1]) - 2}.gn',
    ),
    (r'conv_rpn_fpn2', 'rpn_head.rpn_conv', None),
    (r'rpn_cls_logits_fpn2', 'rpn_head.rpn_cls', None),
    (r'rpn_bbox_pred_fpn2', 'rpn_head.rpn_reg', None),
    (
        r'head_conv(\d)',
        lambda m: f'roi_head.bbox_head.shared_convs.{int(m[1]) - 1}.conv',
        lambda m: f'roi_head.bbox_head.shared_convs.{int(m[1]) - 1}.gn',
    ),
    (r'fc6', 'roi_head.bbox_head.shared_fcs.0', None),
    (r'cls_score', 'roi_head.bbox_head.fc_cls', None),
    (r'bbox_pred', 'roi_head.bbox_head.fc_reg', None),
    (
        r'_mask_fcn(\d)',
        lambda m: f'roi_head.mask_head.convs.{int(m[1]) - 1}.conv',
        lambda m: f'roi_head.mask_head.convs.{int(m[1]) - 1}.gn',
    ),
    (r'conv5_mask', 'roi_head.mask_head.upsample', None),
    (r'mask_fcn_logits', 'roi_head.mask_head.conv_logits', None),
)


def mmdet_key(blob: str) -> str:
    """Where a blob has to land."""
    stem, is_norm, kind = re.fullmatch(r'(.*?)(_gn)?_([wsb])', blob).groups()
    for pattern, conv, norm in _RULES:
        if match := re.fullmatch(pattern, stem):
            layer = norm if is_norm else conv
            layer = layer(match) if callable(layer) else layer
            return f'{layer}.{"bias" if kind == "b" else "weight"}'
    raise KeyError(blob)


def table(path: Path, name: str, shape: str) -> dict[str, tuple[int, ...]]:
    """Two columns of a list: names and shapes."""
    with open(path, newline='') as file:
        return {
            row[name]: tuple(map(int, row[shape].split('x')))
            for row in csv.DictReader(file, delimiter='\t')
        }


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Random numbers that belong to a name."""
    seed = zlib.crc32(name.encode())
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def detectron_blobs() -> dict[str, np.ndarray]:
    """A GN Mask R-CNN of Detectron with what its file has beside the weights."""
    shapes = table(DETECTOR_LIST, 'detectron_blob', 'shape') | BESIDE
    return {name: values(name, shape) for name, shape in shapes.items()}


def detectron_r101_blobs() -> dict[str, torch.Tensor]:
    """The blobs of R-101, shapes only: 23 blocks in stage 4, named so in the neck."""
    blobs = {}
    for name, shape in table(DETECTOR_LIST, 'detectron_blob', 'shape').items():
        empty = torch.empty(shape, device='meta')
        blobs[name.replace('res4_5_sum', 'res4_22_sum')] = empty
        if name.startswith('res4_5_branch'):
            for block in range(6, 23):
                blobs[name.replace('res4_5', f'res4_{block}')] = empty
    return blobs


def detectron2_state() -> dict[str, np.ndarray]:
    """A GN Mask R-CNN of detectron2, with the buffers its older files have."""
    prefixes = {
        'stem': 'backbone.bottom_up.',
        'res': 'backbone.bottom_up.',
        'fpn_': 'backbone.',
        'box_head': 'roi_heads.',
        'mask_head': 'roi_heads.',
        'cls_score': 'roi_heads.box_predictor.',
        'bbox_pred': 'roi_heads.box_predictor.',
        'proposal_generator': '',
    }
    state = {}
    for name, shape in table(
        DETECTOR_LIST, 'detectron2_name', 'detectron2_shape'
    ).items():
        [prefix] = [p for start, p in prefixes.items() if name.startswith(start)]
        state[prefix + name] = values(prefix + name, shape)
    state['pixel_mean'] = np.float32([103.53, 116.28, 123.675]).reshape(3, 1, 1)
    state['pixel_std'] = np.ones((3, 1, 1), np.float32)
    for level in range(5):
        state[f'proposal_generator.anchor_generator.cell_anchors.{level}'] = values(
            f'anchors {level}', (3, 4)
        )
    return state


def write_pickle(path: Path, content: Any) -> Path:
    """A file as Python 2 wrote it."""
    with open(path, 'wb') as file:
        pickle.dump(content, file, protocol=2)
    return path


def build(config: str) -> torch.nn.Module:
    """The detector of a config of the zoo, without its pretrained weights."""
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules()
    cfg = load_config(os.fspath(CONFIGS / config))
    cfg.model.backbone.init_cfg = None
    return MODELS.build(cfg.model)


def on_meta(config: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the detector of a config."""
    with torch.device('meta'):
        model = build(config)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}

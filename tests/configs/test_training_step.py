"""A loss, its gradients and a prediction of the detectors that are built most unlike.

Mask and Faster R-CNN as such are trained by the tests of the tools.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import nn

from tests.configs.zoo import load

KINDS = {
    'cascade': 'gn/cascade-mask-rcnn_r50_fpn_gn-all_2x_coco.py',
    'ws': 'gn+ws/mask-rcnn_x50-32x4d_fpn_gn-ws-all_2x_coco.py',
    'c4': 'c4/mask-rcnn_r50-c4_gn-all_2x_coco.py',
    'bn-backbone': 'gn/mask-rcnn_r50-bn_fpn_gn-neck-heads_ms-2x_coco.py',
    'instance-norm': 'ablation/mask-rcnn_r50-scratch_fpn_in-all_3x_coco.py',
}
HEIGHT, WIDTH = 64, 96


def batch() -> dict:
    """One image with two objects, as the data preprocessor takes it."""
    generator = np.random.default_rng(0)
    image = generator.integers(0, 255, (3, HEIGHT, WIDTH), dtype=np.uint8)
    boxes = torch.tensor([[4.0, 6.0, 40.0, 50.0], [30.0, 10.0, 90.0, 60.0]])
    masks = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    masks[0, 6:50, 4:40] = masks[1, 10:60, 30:90] = 1
    shape = (HEIGHT, WIDTH)
    sample = DetDataSample(
        metainfo=dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0))
    )
    sample.gt_instances = InstanceData(
        bboxes=boxes, labels=torch.tensor([1, 3]), masks=BitmapMasks(masks, *shape)
    )
    return dict(inputs=[torch.from_numpy(image)], data_samples=[sample])


def with_few_boxes(cfg: ConfigDict) -> ConfigDict:
    """The same model on twenty proposals and a narrow hidden layer, for speed."""
    cfg.backbone.init_cfg = None
    cfg.train_cfg.rpn_proposal.max_per_img = cfg.test_cfg.rpn.max_per_img = 20
    for stage in as_list(cfg.train_cfg.rcnn):
        stage.sampler.num = 16
    for head in as_list(cfg.roi_head.bbox_head):
        if 'fc_out_channels' in head:
            head.fc_out_channels = 32
    cfg.test_cfg.rcnn.score_thr = 0.0
    cfg.test_cfg.rcnn.max_per_img = 3
    return cfg


def as_list(stages: ConfigDict | list[ConfigDict]) -> list[ConfigDict]:
    """A cascade has a list of stages, others one."""
    return stages if isinstance(stages, list) else [stages]


@pytest.mark.parametrize('leaf', KINDS.values(), ids=KINDS)
def test_trains_and_predicts(leaf):
    torch.manual_seed(0)
    model = MODELS.build(with_few_boxes(load(leaf).model))
    model.train()
    losses = model(**model.data_preprocessor(batch(), training=True), mode='loss')
    total, _ = model.parse_losses(losses)
    total.backward()
    assert torch.isfinite(total)
    for name, module in model.named_modules():
        if isinstance(module, nn.GroupNorm) and module.weight.requires_grad:
            assert module.weight.grad is not None, name
            assert torch.isfinite(module.weight.grad).all(), name
    model.eval()
    with torch.no_grad():
        (result,) = model(**model.data_preprocessor(batch()), mode='predict')
    found = result.pred_instances
    assert len(found) == 3
    assert torch.isfinite(found.bboxes).all()
    if 'mask' in leaf:
        assert found.masks.shape == (3, HEIGHT, WIDTH)

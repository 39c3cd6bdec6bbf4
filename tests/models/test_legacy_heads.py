"""Detectron's test: proposals, boxes at the original scale, masks, the last pixel."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from gn_det.models.legacy import DetectronBBoxHead, DetectronMaskHead, DetectronRPNHead
from gn_det.models.legacy.mask_head import paste_masks
from tests.workbench.zoo.convert_cases import build

R50 = 'detectron/mask-rcnn_r50_fpn_gn-all-detectron_2x_coco.py'
# An image of 100 × 50 px (width × height), doubled, then padded to a multiple of 32.
META = dict(
    ori_shape=(50, 100),
    img_shape=(100, 200),
    batch_input_shape=(128, 224),
    pad_shape=(128, 224),
    scale_factor=(2.0, 2.0),
)
NMS = dict(type='nms', iou_threshold=0.5, offset=1)


@pytest.fixture(scope='module')
def rpn():
    return DetectronRPNHead(
        in_channels=1,
        anchor_generator=dict(
            type='DetectronAnchorGenerator', strides=[16], ratios=[1.0], scales=[8]
        ),
        bbox_coder=dict(type='DetectronBBoxCoder'),
    ).eval()


def proposals(rpn, deltas) -> list[list[float]]:
    """Proposals from one level of two cells, of equal scores but for their order."""
    cfg = ConfigDict(
        nms_pre=10, max_per_img=10, nms=dict(NMS, iou_threshold=0.7), min_bbox_size=-1
    )
    maps = torch.tensor(deltas).T.reshape(1, 4, 1, 2)
    result = rpn.predict_by_feat(
        [torch.tensor([[[[2.0, 1.0]]]])], [maps], batch_img_metas=[META], cfg=cfg
    )
    return result[0].bboxes.tolist()


def test_proposals_are_clipped_to_the_padded_image(rpn):
    # The anchors are [-56, -56, 71, 71] and the same 16 px to the right.
    found = proposals(rpn, [[1.6, 1.2, 0, 0], [-9.0, 0, 0, 0]])
    assert found[0] == pytest.approx([148.8, 97.6, 223.0, 127.0], abs=1e-4)


def test_proposals_in_training_are_clipped_to_the_image(rpn):
    rpn.train()
    try:
        found = proposals(rpn, [[1.6, 1.2, 0, 0], [-9.0, 0, 0, 0]])
    finally:
        rpn.eval()
    assert found[0] == pytest.approx([148.8, 97.6, 199.0, 99.0], abs=1e-4)


def test_proposals_of_one_pixel_stay_and_smaller_ones_go(rpn):
    # Both clipped to the left edge: the first in a column one pixel wide, the second
    # shrunk below a pixel.
    found = proposals(rpn, [[-1.0, 0, 0, 0], [0.0, 0, -6.0, -6.0]])
    assert len(found) == 1
    x1, _, x2, _ = found[0]
    assert (x1, x2) == (0, 0)


@pytest.fixture(scope='module')
def box_head():
    return DetectronBBoxHead(
        num_classes=2,
        norm_cfg=dict(type='FusedGN', num_groups=32),
        conv_out_channels=256,
        bbox_coder=dict(type='DetectronBBoxCoder', target_stds=(0.1, 0.1, 0.2, 0.2)),
    ).eval()


def final_boxes(box_head, rois, deltas, rescale=True) -> InstanceData:
    scores = torch.tensor([[3.0, 0.0, 0.0]]).repeat(len(rois), 1)
    scores[:, 0] -= torch.arange(len(rois)) / 10
    return box_head.predict_by_feat(
        rois=(torch.tensor(rois),),
        cls_scores=(scores,),
        bbox_preds=(torch.tensor(deltas),),
        batch_img_metas=[META],
        rcnn_test_cfg=ConfigDict(score_thr=0.3, nms=NMS, max_per_img=10),
        rescale=rescale,
    )[0]


def test_boxes_are_decoded_at_the_original_scale(box_head):
    """RoI [20, 40, 58, 78] / 2 is [10, 20, 29, 39], 20 px wide; ×2 about 20: 40 px.

    Decoding first would take 39 px, double them and halve [.5, 20.5, 77.5, …].
    """
    roi = [[0, 20.0, 40.0, 58.0, 78.0]]
    delta = [[0.0, 0.0, 5 * math.log(2), 0.0, 0, 0, 0, 0]]
    result = final_boxes(box_head, roi, delta)
    torch.testing.assert_close(result.bboxes, torch.tensor([[0.0, 20.0, 39.0, 39.0]]))
    unscaled = final_boxes(box_head, roi, delta, rescale=False)
    torch.testing.assert_close(unscaled.bboxes, torch.tensor([[0.5, 40.0, 77.5, 78.0]]))


def test_boxes_are_clipped_to_the_original_image(box_head):
    result = final_boxes(box_head, [[0, -50.0, 40.0, 400.0, 300.0]], [[0.0] * 8])
    assert result.bboxes.tolist() == [[0, 20, 99, 49]]


def test_nms_counts_the_last_pixel(box_head):
    """2 × 1 px beside 3 × 1 px of the same corner: 2/3 with it, 1/2 without.

    Of equal height 1 (corners equal) nothing would overlap without it.
    """
    rois = [[0, 20.0, 20.0, 24.0, 20.0], [0, 20.0, 20.0, 22.0, 20.0]]
    result = final_boxes(box_head, rois, [[0.0] * 8] * 2)
    assert result.bboxes.tolist() == [[10, 10, 12, 10]]


def test_masks_of_ones_fill_their_box():
    """28 × 28 px box [10, 5, 37, 32], soft mask of ones: corners half a pixel out.

    Expanded by 30/28 about (23.5, 18.5): 27/2 · 30/28 = 14.46 → [9.04, 4.04, 37.96,
    32.96] → [9, 4, 37, 32], 29 × 29 px for 30 × 30 values.
    """
    box = np.float32([[10, 5, 37, 32]])
    [mask] = paste_masks(np.ones((1, 28, 28), np.float32), box, (50, 60), 0.5)
    ys, xs = np.nonzero(mask)
    assert mask.shape == (50, 60)
    # Pixel i reads the padded mask at (i + 1/2) · 30/29 − 1/2; its border, index 0 and
    # 29, is 0, so the value is above 1/2 between 1/2 and 28 1/2: 27 of the 29.
    inside = [i for i in range(29) if 0.5 < (i + 0.5) * 30 / 29 - 0.5 < 28.5]
    assert len(inside) == 27
    assert sorted(set(xs)) == [9 + i for i in inside]
    assert sorted(set(ys)) == [4 + i for i in inside]
    assert mask.sum() == len(inside) ** 2


def test_masks_are_cut_at_the_border():
    boxes = np.float32([[-20, -10, 10, 20], [50, 40, 90, 80], [3.4, 3.4, 3.6, 3.6]])
    masks = paste_masks(np.ones((3, 28, 28), np.float32), boxes, (50, 60), 0.5)
    assert masks[0][:19, :9].all()
    assert not masks[0][22:].any()
    assert masks[1][43:, 53:].all()
    assert not masks[1][:, :49].any()
    # One pixel wide: the middle of the mask.
    assert np.argwhere(masks[2]).tolist() == [[3, 3]]


def test_masks_follow_opencv_and_the_threshold():
    soft = np.random.default_rng(0).random((1, 28, 28), dtype=np.float32)
    [mask] = paste_masks(soft, np.float32([[0, 0, 27, 27]]), (28, 28), 0.7)
    # Expanded to [-0.96, 27.96] and cut towards zero: [0, 27].
    resized = cv2.resize(np.pad(soft[0], 1), (28, 28))
    np.testing.assert_array_equal(mask, resized > 0.7)


def test_mask_head_takes_the_class_of_each_box():
    head = DetectronMaskHead(num_classes=3, norm_cfg=None)
    logits = torch.full((1, 3, 28, 28), -9.0)
    logits[0, 2] = 9.0
    result = InstanceData(
        bboxes=torch.tensor([[0.0, 0.0, 27.0, 27.0]]), labels=torch.tensor([2])
    )
    cfg = ConfigDict(mask_thr_binary=0.5)
    for rescale, shape in ((True, (50, 100)), (False, (100, 200))):
        head.predict_by_feat((logits,), [result], [META], cfg, rescale=rescale)
        assert result.masks.shape == (1, *shape)
        assert result.masks[0, 2:25, 2:25].all()
    assert result.bboxes.tolist() == [[0, 0, 27, 27]]


@pytest.fixture(scope='module')
def detector():
    torch.manual_seed(0)
    return build(R50).eval()


def sample():
    from mmdet.structures import DetDataSample

    return DetDataSample(metainfo=META)


def test_the_last_pixel_is_added_after_the_masks(detector, monkeypatch):
    """Mask RoIs are boxes × scale without it; the boxes that come out have it."""
    head, seen = detector.roi_head, {}
    boxes = torch.tensor([[10.0, 20.0, 29.0, 39.0]])

    def predict_bbox(x, metas, proposals, rcnn_test_cfg, rescale):
        assert rescale
        found = InstanceData(bboxes=boxes.clone(), labels=torch.tensor([3]))
        found.scores = torch.tensor([0.9])
        return [found]

    def mask_forward(x, rois):
        seen['rois'] = rois
        return dict(mask_preds=torch.full((len(rois), 80, 28, 28), 9.0))

    monkeypatch.setattr(head, 'predict_bbox', predict_bbox)
    monkeypatch.setattr(head, '_mask_forward', mask_forward)
    [result] = head.predict((), [], [sample()], rescale=True)
    assert seen['rois'].tolist() == [[0, 20, 40, 58, 78]]
    assert result.bboxes.tolist() == [[10, 20, 30, 40]]
    # COCO's width is Detectron's: x2 − x1 + 1 = 20.
    assert result.masks[0, 21:39, 11:29].all()
    assert result.masks.sum() <= 20 * 20


def test_the_detector_trains(detector):
    """One object; every loss is finite and reaches the mask head's last layer."""
    from mmdet.structures.mask import BitmapMasks

    one = sample()
    box = torch.tensor([[20.0, 30.0, 119.0, 89.0]])
    masks = BitmapMasks(np.ones((1, 128, 224), np.uint8), 128, 224)
    one.gt_instances = InstanceData(bboxes=box, labels=torch.tensor([7]), masks=masks)
    losses = detector.train().loss(torch.rand(1, 3, 128, 224) * 99, [one])
    detector.eval()
    total = sum(sum(v) if isinstance(v, list) else v for v in losses.values())
    assert torch.isfinite(total)
    total.backward()
    assert detector.roi_head.mask_head.conv_logits.weight.grad[7].abs().sum() > 0


@pytest.mark.parametrize('score_thr', [0.0, 2.0])
def test_the_detector_runs(detector, score_thr):
    """All parts together on one image, and with nothing found."""
    head = detector.roi_head
    head.test_cfg.score_thr = score_thr
    head.test_cfg.max_per_img = 5
    detector.rpn_head.test_cfg.max_per_img = 20
    with torch.no_grad():
        [found] = detector.predict(torch.rand(1, 3, 128, 224) * 99, [sample()])
    result = found.pred_instances
    assert len(result) == (5 if score_thr == 0 else 0)
    assert result.masks.shape == (len(result), 50, 100)
    if len(result):
        assert result.bboxes[:, 2].max() <= 100
        assert (result.bboxes[:, 2:] - result.bboxes[:, :2]).min() > 0

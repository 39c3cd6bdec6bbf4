"""Detectron's anchors and box arithmetic, against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes

from gn_det.models.legacy import (
    DetectronAnchorGenerator,
    DetectronBBoxCoder,
    DetectronGroundTruth,
    DetectronRoIExtractor,
)

# Widths and heights of ratio 1/2, 1, 2 at each stride: the root of s² / ratio rounded,
# the height rounded from that, both times 8. Stride 16: √512 = 22.6 → 23, 11.5 → 12.
SIZES = {
    4: [(48, 24), (32, 32), (24, 48)],
    8: [(88, 48), (64, 64), (48, 96)],
    16: [(184, 96), (128, 128), (88, 176)],
    32: [(360, 176), (256, 256), (184, 368)],
    64: [(728, 368), (512, 512), (360, 720)],
}


@pytest.fixture(scope='module')
def anchors():
    return DetectronAnchorGenerator(
        strides=list(SIZES), ratios=[0.5, 1.0, 2.0], scales=[8]
    )


@pytest.mark.parametrize('level', range(5))
def test_anchors_have_detectrons_corners(anchors, level):
    stride, sizes = list(SIZES.items())[level]
    centre = (stride - 1) / 2
    expected = [
        [
            centre - (w - 1) / 2,
            centre - (h - 1) / 2,
            centre + (w - 1) / 2,
            centre + (h - 1) / 2,
        ]
        for w, h in sizes
    ]
    assert anchors.base_anchors[level].tolist() == expected


def test_anchors_of_one_stride_by_hand(anchors):
    """Stride 16, as Detectron's own comment lists them for sizes of 128."""
    assert anchors.base_anchors[2].tolist() == [
        [-84, -40, 99, 55],
        [-56, -56, 71, 71],
        [-36, -80, 51, 95],
    ]


def test_anchors_shift_by_the_stride(anchors):
    grid = anchors.single_level_grid_priors((2, 3), level_idx=0, device='cpu')
    assert grid.shape == (2 * 3 * 3, 4)
    assert (grid[3] - grid[0]).tolist() == [4, 0, 4, 0]
    assert (grid[9] - grid[0]).tolist() == [0, 4, 0, 4]


def test_decode_without_deltas_gives_the_box_back():
    """mmdet's legacy coder returns [9.5, 19.5, 29.5, 59.5] here."""
    box = torch.tensor([[10.0, 20.0, 29.0, 59.0]])
    assert DetectronBBoxCoder().decode(box, torch.zeros(1, 4)).tolist() == box.tolist()


def test_decode_by_hand():
    """20 × 40 px at centre (20, 40): moved by (2, −4), grown to 40 × 20."""
    box = torch.tensor([[10.0, 20.0, 29.0, 59.0]])
    delta = torch.tensor([[0.1, -0.1, math.log(2), math.log(0.5)]])
    decoded = DetectronBBoxCoder().decode(box, delta)
    torch.testing.assert_close(decoded, torch.tensor([[2.0, 26.0, 41.0, 45.0]]))


def test_decode_divides_by_detectrons_weights():
    """Weights (10, 10, 5, 5): a delta of 1 moves by a tenth."""
    coder = DetectronBBoxCoder(target_stds=(0.1, 0.1, 0.2, 0.2))
    box = torch.tensor([[0.0, 0.0, 9.0, 9.0]])
    delta = torch.tensor([[1.0, 2.0, 5 * math.log(2), 0.0]])
    torch.testing.assert_close(
        coder.decode(box, delta), torch.tensor([[-4.0, 2.0, 15.0, 11.0]])
    )


def test_encode_is_the_inverse():
    coder = DetectronBBoxCoder(target_stds=(0.1, 0.1, 0.2, 0.2))
    boxes = torch.tensor([[10.0, 20.0, 29.0, 59.0], [0.0, 0.0, 0.0, 0.0]])
    targets = torch.tensor([[2.0, 26.0, 41.0, 45.0], [3.0, 1.0, 4.0, 9.0]])
    deltas = coder.encode(boxes, targets)
    by_hand = [1.0, -1.0, 5 * math.log(2), 5 * math.log(0.5)]
    torch.testing.assert_close(deltas[0], torch.tensor(by_hand))
    torch.testing.assert_close(coder.decode(boxes, deltas), targets)


def test_decode_clips_to_the_last_pixel():
    box = torch.tensor([[-5.0, -5.0, 200.0, 200.0]])
    decoded = DetectronBBoxCoder().decode(box, torch.zeros(1, 4), max_shape=(80, 100))
    assert decoded.tolist() == [[0, 0, 99, 79]]


def test_growth_is_bounded_and_shrinking_is_not():
    coder = DetectronBBoxCoder()
    box = torch.tensor([[0.0, 0.0, 15.0, 15.0]])
    grown = coder.decode(box, torch.tensor([[0.0, 0.0, 9.0, 9.0]]))
    torch.testing.assert_close(grown, torch.tensor([[-492.0, -492.0, 507.0, 507.0]]))
    shrunk = coder.decode(box, torch.tensor([[0.0, 0.0, -9.0, -9.0]]))
    width = (shrunk[0, 2] - shrunk[0, 0] + 1).item()
    assert width == pytest.approx(16 * math.exp(-9), rel=1e-3)


def test_several_deltas_for_one_box():
    box = torch.tensor([[0.0, 0.0, 9.0, 9.0]])
    deltas = torch.tensor([[0.0, 0, 0, 0, 0.1, 0, 0, 0]])
    decoded = DetectronBBoxCoder().decode(box, deltas, max_shape=(10, 10))
    assert decoded.tolist() == [[0, 0, 9, 9, 1, 0, 9, 9]]


@pytest.fixture(scope='module')
def extractor():
    return DetectronRoIExtractor(
        roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=2, aligned=False),
        out_channels=1,
        featmap_strides=[4, 8, 16, 32],
    )


@pytest.mark.parametrize(
    ('side', 'level'), [(1, 0), (111, 0), (112, 1), (223, 1), (224, 2), (448, 3)]
)
def test_level_of_a_roi(extractor, side, level):
    """A box of 224 × 224 px, corners 223 apart, is on level 4, whose index is 2."""
    rois = torch.tensor([[0, 10.0, 10.0, 10.0 + side - 1, 10.0 + side - 1]])
    assert extractor.map_roi_levels(rois, 4).tolist() == [level]


def test_roi_align_does_not_shift_by_half_a_pixel(extractor):
    """On a map whose value is x, the first bin of a RoI 28 px wide is 1/2 cell in."""
    ramp = torch.arange(20.0).expand(1, 1, 20, 20)
    features = [ramp, *(torch.zeros(1, 1, n, n) for n in (10, 5, 3))]
    roi = torch.tensor([[0, 8.0, 8.0, 36.0, 36.0]])
    row = extractor(features, roi)[0, 0, 0]
    torch.testing.assert_close(row, torch.arange(7.0) + 2.5)


def test_ground_truth_loses_a_pixel_of_the_original():
    boxes = HorizontalBoxes(torch.tensor([[10.0, 20.0, 30.0, 60.0], [5, 5, 5.5, 9]]))
    results = DetectronGroundTruth()(dict(gt_bboxes=boxes, scale_factor=(2.0, 1.5)))
    assert results['gt_bboxes'].tensor.tolist() == [
        [10.0, 20.0, 28.0, 58.5],
        [5.0, 5.0, 5.0, 7.5],
    ]

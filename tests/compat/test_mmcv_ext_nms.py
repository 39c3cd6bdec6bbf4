"""NMS, soft-NMS, NMS matching and NMS of lines, through mmcv's functions."""

import numpy as np
import pytest
import torch

from gn_det.compat import mmcv_ext
from gn_det.compat.operators import OPERATORS
from tests.compat.devices import DEVICES

mmcv_ext.install()

from mmcv import ops  # noqa: E402  (needs `install`)

pytestmark = pytest.mark.skipif(
    not mmcv_ext.is_substitute(), reason='this mmcv has its compiled operators'
)

# Boxes, scores and results of mmcv's own tests (tests/test_ops/test_nms.py).
PUBLISHED_BOXES = torch.tensor(
    [[6, 3, 8, 7], [3, 6, 9, 11], [3, 7, 10, 12], [1, 4, 13, 7]], dtype=torch.float32
)
PUBLISHED_SCORES = torch.tensor([0.6, 0.9, 0.7, 0.2])
PUBLISHED_SOFT_NMS = {
    'linear': ([0.9, 0.6, 0.29024392, 0.2], [1, 0, 2, 3]),
    'gaussian': ([0.9, 0.59630775, 0.35275510, 0.18650459], [1, 0, 2, 3]),
}


def random_boxes(seed: int, n: int, size: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Boxes on whole pixels with few distinct scores: ties of both kinds abound."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, size, (n, 2))
    boxes = np.concatenate([corner, corner + rng.integers(0, size // 2, (n, 2))], 1)
    scores = rng.integers(1, 20, n) / 20
    return boxes.astype(np.float32), scores.astype(np.float32)


def iou(a: np.ndarray, b: np.ndarray, offset: int) -> np.float32:
    width = max(np.float32(0), min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(np.float32(0), min(a[3], b[3]) - max(a[1], b[1]) + offset)
    overlap = width * height
    if overlap == 0:
        return np.float32(0)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    return overlap / (areas[0] + areas[1] - overlap)


def brute_force_nms(
    boxes: np.ndarray, scores: np.ndarray, threshold: float, offset: int = 0
) -> list[int]:
    """A box stays if it overlaps no better box that stays by more than `threshold`."""
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        overlaps = [iou(boxes[i], boxes[j], offset) for j in kept]
        if all(overlap <= np.float32(threshold) for overlap in overlaps):
            kept.append(i)
    return kept


def looped_soft_nms(
    boxes: np.ndarray,
    scores: np.ndarray,
    threshold: float,
    sigma: float,
    min_score: float,
    method: str,
    offset: int,
) -> tuple[list[float], list[int]]:
    """Soft-NMS on one list that shrinks by moving its last item into each hole."""
    items = [[i, box, scores[i]] for i, box in enumerate(boxes)]
    taken = 0
    while taken < len(items):
        best = max(range(taken, len(items)), key=lambda p: items[p][2])
        items[taken], items[best] = items[best], items[taken]
        box = items[taken][1]
        taken += 1
        p = taken
        while p < len(items):
            overlap = iou(box, items[p][1], offset)
            if method == 'gaussian':
                items[p][2] *= np.exp(-(overlap * overlap) / np.float32(sigma))
            elif overlap >= np.float32(threshold):
                items[p][2] *= 1 - overlap
            if items[p][2] < np.float32(min_score):
                items[p] = items[-1]
                items.pop()
            else:
                p += 1
    return [item[2] for item in items], [item[0] for item in items]


@pytest.mark.parametrize('device', DEVICES)
def test_nms_published(device):
    dets, keep = ops.nms(
        PUBLISHED_BOXES.to(device), PUBLISHED_SCORES.to(device), iou_threshold=0.3
    )
    assert keep.tolist() == [1, 0, 3]
    expected = torch.cat([PUBLISHED_BOXES, PUBLISHED_SCORES[:, None]], 1)[[1, 0, 3]]
    torch.testing.assert_close(dets.cpu(), expected)


def test_nms_of_numpy_arrays():
    """The example of mmcv's docstring: three of seven boxes stay."""
    boxes = np.array(
        [
            [49.1, 32.4, 51.0, 35.9],
            [49.3, 32.9, 51.0, 35.3],
            [49.2, 31.8, 51.0, 35.4],
            [35.1, 11.5, 39.1, 15.7],
            [35.6, 11.8, 39.3, 14.2],
            [35.3, 11.5, 39.9, 14.5],
            [35.2, 11.7, 39.7, 15.7],
        ],
        dtype=np.float32,
    )
    scores = np.array([0.9, 0.9, 0.5, 0.5, 0.5, 0.4, 0.3], dtype=np.float32)
    dets, keep = ops.nms(boxes, scores, 0.6)
    assert isinstance(dets, np.ndarray)
    assert isinstance(keep, np.ndarray)
    assert len(dets) == len(keep) == 3


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.3, 0.5, 0.7])
def test_nms_matches_brute_force(threshold, offset, device):
    boxes, scores = random_boxes(seed=offset, n=150)
    expected = brute_force_nms(boxes, scores, threshold, offset)
    # The case must tell the two offsets apart.
    assert expected != brute_force_nms(boxes, scores, threshold, 1 - offset)
    _, keep = ops.nms(
        torch.from_numpy(boxes).to(device),
        torch.from_numpy(scores).to(device),
        threshold,
        offset=offset,
    )
    assert keep.tolist() == expected


@pytest.mark.parametrize(('height', 'threshold'), [(3, 0.3), (5, 0.5), (7, 0.7)])
def test_iou_equal_to_the_threshold_stays(height, threshold):
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, height]], dtype=torch.float32)
    scores = torch.tensor([0.9, 0.8])
    assert ops.nms(boxes, scores, threshold)[1].tolist() == [0, 1]
    assert ops.nms(boxes, scores, threshold - 1e-6)[1].tolist() == [0]


def test_nms_score_threshold_and_max_num():
    boxes, scores = random_boxes(seed=2, n=100)
    candidates = np.flatnonzero(scores > np.float32(0.5))
    kept = brute_force_nms(boxes[candidates], scores[candidates], 0.3)
    expected = candidates[kept].tolist()
    assert len(expected) > 5
    args = torch.from_numpy(boxes), torch.from_numpy(scores), 0.3
    assert ops.nms(*args, score_threshold=0.5)[1].tolist() == expected
    assert ops.nms(*args, score_threshold=0.5, max_num=5)[1].tolist() == expected[:5]


def test_nms_without_boxes():
    dets, keep = ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert dets.shape == (0, 5)
    assert keep.dtype == torch.int64
    assert keep.shape == (0,)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_nms_of_other_dtypes(dtype):
    boxes, scores = random_boxes(seed=3, n=100)
    scores = torch.from_numpy(scores).to(dtype)
    expected = brute_force_nms(boxes, scores.double().numpy(), 0.5, offset=1)
    boxes = torch.from_numpy(boxes).to(dtype)
    assert ops.nms(boxes, scores, 0.5, offset=1)[1].tolist() == expected
    if dtype != torch.float64:
        assert ops.nms(boxes, scores.float(), 0.5, offset=1)[1].tolist() == expected


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('split_thr', [10000, 10])
def test_batched_nms_separates_classes(split_thr, device):
    boxes, scores = random_boxes(seed=4, n=120)
    # Distinct scores: the two paths order equal ones differently.
    scores = np.random.default_rng(4).permutation(120).astype(np.float32) / 120
    classes = np.arange(120) % 3
    expected = []
    for number in range(3):
        members = np.flatnonzero(classes == number)
        expected += members[
            brute_force_nms(boxes[members], scores[members], 0.4)
        ].tolist()
    expected.sort(key=lambda i: -scores[i])
    agnostic = brute_force_nms(boxes, scores, 0.4)
    assert len(agnostic) < len(expected)

    tensors = [torch.from_numpy(a).to(device) for a in (boxes, scores, classes)]
    config = {'type': 'nms', 'iou_threshold': 0.4, 'split_thr': split_thr}
    dets, keep = ops.batched_nms(*tensors, config)
    assert keep.tolist() == expected
    torch.testing.assert_close(dets[:, :4], tensors[0][keep])
    torch.testing.assert_close(dets[:, 4], tensors[1][keep])
    _, keep = ops.batched_nms(*tensors, dict(config, max_num=7))
    assert keep.tolist() == expected[:7]


@pytest.mark.parametrize('in_config', [True, False])
def test_batched_nms_class_agnostic(in_config):
    boxes, scores = random_boxes(seed=5, n=100)
    tensors = [torch.from_numpy(a) for a in (boxes, scores, np.arange(100) % 3)]
    config = {'type': 'nms', 'iou_threshold': 0.4}
    if in_config:
        _, keep = ops.batched_nms(*tensors, dict(config, class_agnostic=True))
    else:
        _, keep = ops.batched_nms(*tensors, config, class_agnostic=True)
    assert keep.tolist() == brute_force_nms(boxes, scores, 0.4)


def test_batched_soft_nms_is_the_same_split_or_whole():
    boxes, _ = random_boxes(seed=6, n=60)
    scores = np.random.default_rng(6).permutation(60).astype(np.float32) / 60
    tensors = [torch.from_numpy(a) for a in (boxes, scores, np.arange(60) % 2)]
    config = {'type': 'soft_nms', 'iou_threshold': 0.3, 'min_score': 0.1}
    dets, keep = ops.batched_nms(*tensors, config)
    split_dets, split_keep = ops.batched_nms(*tensors, dict(config, split_thr=10))
    assert keep.tolist() == split_keep.tolist()
    torch.testing.assert_close(dets, split_dets)
    assert (dets[:, 4] < tensors[1][keep]).any()


@pytest.mark.parametrize('method', PUBLISHED_SOFT_NMS)
def test_soft_nms_published(method):
    scores, inds = PUBLISHED_SOFT_NMS[method]
    dets, keep = ops.soft_nms(PUBLISHED_BOXES, PUBLISHED_SCORES, 0.3, 0.5, 0.01, method)
    assert keep.tolist() == inds
    torch.testing.assert_close(dets[:, 4], torch.tensor(scores))
    torch.testing.assert_close(dets[:, :4], PUBLISHED_BOXES[inds])


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', ['linear', 'gaussian'])
@pytest.mark.parametrize('seed', range(3))
def test_soft_nms_matches_a_plain_loop(seed, method, offset):
    boxes, scores = random_boxes(seed, n=80)
    parameters = (0.3, 0.5, 0.2, method, offset)
    expected_scores, expected_inds = looped_soft_nms(boxes, scores, *parameters)
    assert len(expected_inds) < 80
    dets, keep = ops.soft_nms(
        torch.from_numpy(boxes), torch.from_numpy(scores), *parameters
    )
    assert keep.tolist() == expected_inds
    np.testing.assert_allclose(dets[:, 4], expected_scores, rtol=1e-5)
    np.testing.assert_array_equal(dets[:, :4], boxes[expected_inds])


def test_soft_nms_refuses_the_naive_form():
    with pytest.raises(NotImplementedError, match="use type='nms'"):
        ops.soft_nms(PUBLISHED_BOXES, PUBLISHED_SCORES, method='naive')


def test_soft_nms_leaves_its_inputs_alone():
    boxes, scores = PUBLISHED_BOXES.clone(), PUBLISHED_SCORES.clone()
    ops.soft_nms(boxes, scores, method='gaussian')
    assert torch.equal(boxes, PUBLISHED_BOXES)
    assert torch.equal(scores, PUBLISHED_SCORES)


def test_soft_nms_of_empty_boxes_stays_finite():
    """The docstring's example in mmcv: five of six stay, three of no size at all."""
    boxes = torch.tensor(
        [[4, 3, 5, 3], [4, 3, 5, 4], [3, 1, 3, 1], [3, 1, 3, 1], [3, 1, 3, 1], [3] * 4],
        dtype=torch.float32,
    )
    scores = torch.tensor([0.9, 0.9, 0.5, 0.5, 0.4, 0.0])
    for method in PUBLISHED_SOFT_NMS:
        dets, keep = ops.soft_nms(boxes, scores, 0.6, sigma=0.5, method=method)
        assert keep.tolist() == [0, 1, 2, 3, 4]
        torch.testing.assert_close(dets[:, 4], scores[:5])


def test_soft_nms_without_boxes():
    dets, keep = ops.soft_nms(torch.zeros(0, 4), torch.zeros(0))
    assert dets.shape == (0, 5)
    assert keep.shape == (0,)


def test_nms_match_groups_what_nms_removes():
    boxes, scores = random_boxes(seed=7, n=80)
    dets = torch.from_numpy(np.concatenate([boxes, scores[:, None]], 1))
    left = sorted(range(80), key=lambda i: (-scores[i], i))
    expected = []
    while left:
        kept, *rest = left
        removed = [i for i in rest if iou(boxes[kept], boxes[i], 0) >= np.float32(0.5)]
        expected.append([kept, *removed])
        left = [i for i in rest if i not in removed]
    assert max(len(group) for group in expected) > 2
    assert [group.tolist() for group in ops.nms_match(dets, 0.5)] == expected


@pytest.mark.parametrize(('height', 'threshold'), [(3, 0.3), (5, 0.5), (7, 0.7)])
def test_nms_match_takes_an_iou_equal_to_the_threshold(height, threshold):
    dets = torch.tensor([[0, 0, 10, 10, 0.9], [0, 0, 10, height, 0.8]])
    groups = ops.nms_match(dets, threshold)
    assert [group.tolist() for group in groups] == [[0, 1]]


def test_nms_match_published():
    """mmcv's own test: the groups are headed by what NMS keeps."""
    dets = torch.tensor(
        [
            [49.1, 32.4, 51.0, 35.9, 0.9],
            [49.3, 32.9, 51.0, 35.3, 0.9],
            [35.3, 11.5, 39.9, 14.5, 0.4],
            [35.2, 11.7, 39.7, 15.7, 0.3],
        ]
    )
    groups = [group.tolist() for group in ops.nms_match(dets, 0.6)]
    assert groups == [[0, 1], [2, 3]]
    assert ops.nms(dets[:, :4], dets[:, 4], 0.6)[1].tolist() == [0, 2]


def looped_line_nms(
    lines: np.ndarray, scores: np.ndarray, threshold: float, top_k: int
) -> tuple[list[int], list[int]]:
    """The lines that stay, and for each line the last of them that it is near to."""
    strips = lines.shape[1] - 6

    def near(a: np.ndarray, b: np.ndarray) -> bool:
        starts = [int(line[2] * strips + 0.5) for line in (a, b)]
        ends = [start + int(x[4]) - 1 for start, x in zip(starts, (a, b), strict=True)]
        first, last = max(starts), min(strips, *ends)
        if last < first:
            return False
        return np.abs(a - b)[5 + first : 6 + last].mean() < threshold

    order = np.argsort(-scores)
    kept, removed, parents = [], set(), [0] * len(lines)
    for place, i in enumerate(order):
        if i in removed or len(kept) == top_k:
            continue
        kept.append(i)
        parents[i] = len(kept)
        for j in order[place + 1 :]:
            if near(lines[i], lines[j]):
                removed.add(j)
                parents[j] = len(kept)
    return kept, parents


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('top_k', [100, 5])
def test_line_nms_matches_a_plain_loop(top_k, device):
    """Called by its name in `mmcv._ext`: only onedl's mmcv has a function for it."""
    rng = np.random.default_rng(top_k)
    lines = np.zeros((40, 5 + 72))
    lines[:, 2] = rng.choice([0, 0.1, 0.5, 0.9], 40)
    lines[:, 4] = rng.integers(0, 80, 40)
    lines[:, 5:] = rng.integers(0, 3, (40, 1)) * 40 + rng.normal(0, 4, (40, 72))
    scores = rng.permutation(40) / 40
    kept, parents = looped_line_nms(lines, scores, 10.0, top_k)
    assert 0 < len(set(parents)) < 40
    tensors = [torch.from_numpy(a).to(device) for a in (lines, scores)]
    keep, count, parent = OPERATORS['line_nms_forward'](*tensors, 10.0, top_k)
    assert keep[: count.item()].tolist() == kept
    assert keep[count.item() :].tolist() == [0] * (40 - len(kept))
    assert parent.tolist() == parents

"""What is found in an image depends on the image alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from pycocotools import mask as coco_mask

from gn_det.workbench.errors import UserError
from gn_det.workbench.inference import load_detector
from gn_det.workbench.inference.detector import category_ids
from tests.running import CONFIG, REPOSITORY

PATH = REPOSITORY / CONFIG


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    # Coarse noise: something to find at every place.
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    rows = np.arange(height) * 8 // height
    columns = np.arange(width) * 8 // width
    return coarse[rows][:, columns]


def by_index(detector, images, batch_size, threshold=0.0):
    return {
        index: found
        for index, _, found in detector.detect(images, threshold, batch_size)
    }


def test_found_objects_do_not_depend_on_the_batch(detector):
    # Resized to fit 128 × 128: padded to 128 × 128, 64 × 128 and 128 × 64.
    sizes = [(128, 128), (60, 128), (128, 60), (100, 110), (60, 128)]
    images = [image(*size, seed) for seed, size in enumerate(sizes)]
    alone = by_index(detector, images, 1)
    together = by_index(detector, images, 3)
    assert alone.keys() == together.keys() == set(range(5))
    for index, found in alone.items():
        assert len(found) > 0
        other = together[index]
        np.testing.assert_allclose(other.scores, found.scores, atol=1e-5)
        np.testing.assert_allclose(other.boxes, found.boxes, atol=1e-2)


def test_only_images_of_one_padded_size_share_a_batch(detector, monkeypatch):
    seen = []
    step = detector.model.test_step

    def watched(data):
        seen.append([tuple(x.shape[-2:]) for x in data['inputs']])
        return step(data)

    monkeypatch.setattr(detector.model, 'test_step', watched)
    sizes = [(128, 128), (60, 128), (126, 128), (60, 128), (128, 128)]
    by_index(detector, [image(*size) for size in sizes], 2)
    assert seen == [
        [(128, 128), (126, 128)],
        [(60, 128), (60, 128)],
        [(128, 128)],
    ]


def test_boxes_masks_and_names_in_pixels_of_the_image(detector):
    height, width = 90, 200
    ((_, _, found),) = detector.detect([image(height, width)], 0.0)
    assert found.classes == ('circle', 'square', 'triangle')
    assert found.masks.shape == (len(found), height, width)
    assert (found.boxes[:, [0, 2]] <= width).all()
    assert found.boxes[:, 2].max() > 128
    assert (np.diff(found.scores) <= 0).all()
    annotations = found.coco(image_id=7, first_id=5)
    assert [a['id'] for a in annotations] == list(range(5, 5 + len(found)))
    first = annotations[0]
    assert first['category_id'] == found.labels[0] + 1
    assert first['image_id'] == 7
    x1, y1, x2, y2 = found.boxes[0].tolist()
    assert first['bbox'] == pytest.approx([x1, y1, x2 - x1, y2 - y1])
    decoded = coco_mask.decode(first['segmentation'])
    np.testing.assert_array_equal(decoded, found.masks[0])


def test_threshold(detector):
    scores = by_index(detector, [image(128, 128)], 1)[0].scores
    threshold = float(np.median(scores))
    found = by_index(detector, [image(128, 128)], 1, threshold)[0]
    assert len(found) == (scores >= threshold).sum()
    assert len(by_index(detector, [image(128, 128)], 1, 1.0)[0]) == 0


def test_painting_leaves_the_image_alone(detector):
    original = image(128, 128)
    kept = original.copy()
    ((_, _, found),) = detector.detect([original], 0.0)
    painted = detector.paint(original, found)
    np.testing.assert_array_equal(original, kept)
    assert painted.shape == original.shape
    assert painted.dtype == np.uint8
    assert (painted != original).any()
    ((_, _, nothing),) = detector.detect([original], 1.0)
    np.testing.assert_array_equal(detector.paint(original, nothing), original)


def test_class_names_of_the_config_where_the_checkpoint_has_none(checkpoint, tmp_path):
    bare = tmp_path / 'bare.pth'
    weights = torch.load(checkpoint, weights_only=True)['state_dict']
    torch.save(weights, bare)
    found = load_detector(PATH, bare, 'cpu')
    assert found.classes == ('circle', 'square', 'triangle')


def test_an_image_the_pipeline_fails_on_is_left_out_or_an_error(detector):
    images = [image(64, 64), np.zeros((2, 3000, 3), np.uint8), image(64, 64, 1)]
    failed = []
    found = list(
        detector.detect(images, batch_size=3, on_failure=lambda *a: failed.append(a))
    )
    assert [index for index, _, _ in found] == [0, 2]
    ((index, error),) = failed
    assert index == 1
    assert str(error)
    with pytest.raises(type(error)):
        list(detector.detect(images))


def test_categories_of_coco_have_its_ids():
    names = CocoDataset.METAINFO['classes']
    ids = dict(zip(names, category_ids(names), strict=True))
    known = {
        'person': 1, 'stop sign': 13, 'backpack': 27, 'bottle': 44, 'wine glass': 46,
        'dining table': 67, 'toilet': 70, 'tv': 72, 'refrigerator': 82, 'book': 84,
        'toothbrush': 90,
    }  # fmt: skip
    assert {name: ids[name] for name in known} == known
    assert len(set(ids.values())) == 80
    assert category_ids(names[:3]) == [1, 2, 3]


def test_mistakes(checkpoint, tmp_path):
    with pytest.raises(UserError, match=r'no published weights.*give the checkpoint'):
        load_detector(PATH)
    with pytest.raises(UserError, match='checkpoint not found'):
        load_detector(PATH, tmp_path / 'nothing.pth', 'cpu')
    with pytest.raises(UserError, match='--device gpu cannot be used'):
        load_detector(PATH, checkpoint, 'gpu')
    with pytest.raises(UserError, match=r'model\.typo: \w+ has no such setting'):
        load_detector(PATH, checkpoint, 'cpu', {'model.typo': 1})
    with pytest.raises(UserError, match='does not match the model'):
        load_detector(PATH, checkpoint, 'cpu', {'model.neck.num_outs': 5,
                      'model.roi_head.bbox_head.num_classes': 4})  # fmt: skip

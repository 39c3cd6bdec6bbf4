"""The generated set is COCO: its truth fits the pixels; it is the same each time."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from gn_det.workbench.datasets import ShapesSpec, generate_shapes, read_stamp
from gn_det.workbench.datasets.shapes import _uncompressed_rle, draw_image

SPEC = ShapesSpec(num_train=10, num_val=3, height=80, width=96, crowd_fraction=0.5)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('shapes') / 'set'
    assert generate_shapes(root, SPEC)
    return root


def load(root, split='train') -> COCO:
    return COCO(root / 'annotations' / f'instances_{split}.json')


@pytest.mark.parametrize(('split', 'count'), [('train', 10), ('val', 3)])
def test_images_are_there_in_the_stated_size(root, split, count):
    coco = load(root, split)
    assert len(coco.imgs) == count == len(list((root / split).iterdir()))
    for record in coco.imgs.values():
        image = cv2.imread(str(root / split / record['file_name']))
        assert image.shape == (80, 96, 3) == (record['height'], record['width'], 3)


def test_truth_is_tight_and_matches_its_mask(root):
    coco = load(root)
    for ann in coco.anns.values():
        mask = coco.annToMask(ann)
        x, y, w, h = ann['bbox']
        found = cv2.boundingRect(mask)
        assert np.abs(np.subtract(found, (x, y, w, h))).max() <= 1.5
        # A polygon follows the pixels to within its half-pixel simplification.
        outline = 2 * (w + h)
        assert abs(int(mask.sum()) - ann['area']) <= 0.25 * outline


def test_objects_of_an_image_do_not_overlap(root):
    coco = load(root)
    for image_id in coco.imgs:
        anns = coco.loadAnns(coco.getAnnIds(image_id, iscrowd=False))
        total = sum(coco.annToMask(ann).astype(int) for ann in anns)
        # Neighbours may share the pixels their common edge runs through.
        assert np.count_nonzero(total > 1) <= 0.02 * total.size


def test_crowds_are_rle_and_the_rest_polygons(root):
    anns = load(root).anns.values()
    crowds = [ann for ann in anns if ann['iscrowd']]
    assert crowds
    assert len(crowds) < len(anns)
    for ann in anns:
        assert isinstance(ann['segmentation'], dict if ann['iscrowd'] else list)
    for ann in crowds:
        counts = ann['segmentation']['counts']
        assert sum(counts) == 80 * 96
        assert sum(counts[1::2]) == ann['area']


@pytest.mark.parametrize('first', [0, 1])
def test_run_lengths_decode_to_the_region(first):
    mask = np.random.default_rng(0).integers(0, 2, (7, 5)).astype(np.uint8)
    mask[0, 0] = first
    rle = coco_mask.frPyObjects(_uncompressed_rle(mask), 7, 5)
    assert np.array_equal(coco_mask.decode(rle), mask)


def test_occluder_takes_the_pixels():
    """Where shapes overlap, the truth of the lower one is its visible part."""
    spec = replace(SPEC, max_objects=8, crowd_fraction=0.0)
    whole = visible = 0
    for seed in range(20):
        _, objects = draw_image(np.random.default_rng(seed), spec)
        masks = [
            coco_mask.decode(
                coco_mask.merge(coco_mask.frPyObjects(o['segmentation'], 80, 96))
            )
            for o in objects
        ]
        visible += sum(int(m.sum()) for m in masks)
        whole += int(np.clip(sum(m.astype(int) for m in masks), 0, 1).sum())
    assert visible <= 1.03 * whole


def test_same_spec_same_files(root, tmp_path):
    again = tmp_path / 'again'
    generate_shapes(again, SPEC)
    for path in sorted(p for p in root.rglob('*') if p.is_file()):
        assert (again / path.relative_to(root)).read_bytes() == path.read_bytes()


def test_an_image_does_not_depend_on_how_many_there_are(root, tmp_path):
    more = tmp_path / 'more'
    generate_shapes(more, replace(SPEC, num_train=12))
    first = 'train/000001.jpg'
    assert (more / first).read_bytes() == (root / first).read_bytes()


def test_second_call_keeps_the_set_and_another_spec_replaces_it(tmp_path):
    root = tmp_path / 'set'
    small = replace(SPEC, num_train=2, num_val=1)
    assert generate_shapes(root, small)
    before = (root / 'train/000001.jpg').stat().st_mtime_ns
    assert not generate_shapes(root, small)
    assert (root / 'train/000001.jpg').stat().st_mtime_ns == before
    assert generate_shapes(root, replace(small, num_train=3))
    assert len(load(root).imgs) == 3


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    precious = tmp_path / 'holiday.jpg'
    precious.write_bytes(b'x')
    with pytest.raises(FileExistsError, match='not a generated set'):
        generate_shapes(tmp_path, SPEC)
    assert precious.read_bytes() == b'x'


@pytest.mark.parametrize('name', ['notes.txt', 'train/mine.png', 'val/a/000001.jpg'])
def test_files_of_something_else_in_a_set_are_kept(tmp_path, name):
    root = tmp_path / 'set'
    small = replace(SPEC, num_train=2, num_val=1)
    generate_shapes(root, small)
    precious = root / name
    precious.parent.mkdir(exist_ok=True)
    precious.write_bytes(b'x')
    assert not generate_shapes(root, small)
    with pytest.raises(FileExistsError, match=f'{name} is not of the set of shapes'):
        generate_shapes(root, replace(small, num_train=3))
    assert precious.read_bytes() == b'x'
    assert len(load(root).imgs) == 2


@pytest.mark.parametrize('stamp', ['5', '{}', '[1]', 'x'])
def test_a_stamp_that_is_none(tmp_path, stamp):
    (tmp_path / 'shapes.json').write_text(stamp)
    assert read_stamp(tmp_path) is None
    with pytest.raises(FileExistsError, match='not a generated set'):
        generate_shapes(tmp_path, SPEC)


def test_interrupted_generation_leaves_nothing(tmp_path):
    def interrupt(todo):
        yield todo[0]
        raise KeyboardInterrupt

    root = tmp_path / 'set'
    with pytest.raises(KeyboardInterrupt):
        generate_shapes(root, SPEC, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    'field', [dict(num_train=0), dict(height=8), dict(crowd_fraction=1.5)]
)
def test_bad_spec_names_the_field(field):
    with pytest.raises(ValueError, match=f'shapes: .*{next(iter(field))}'):
        ShapesSpec(**field)


def test_annotation_file_is_plain_json(root):
    content = json.loads((root / 'annotations/instances_val.json').read_text())
    assert set(content) >= {'images', 'annotations', 'categories'}

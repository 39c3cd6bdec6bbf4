"""What a COCO file may hold; what is wrong is named, what is odd is counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.annotations import check_annotations, check_classes
from gn_det.workbench.inputs.annotations.masks import fills_image
from gn_det.workbench.inputs.annotations.reading import (
    SharedCOCO,
    hand_on,
    read_json,
)

BOTH = ['bbox', 'segm']
NAN = float('nan')


@pytest.fixture
def content(shapes) -> dict:
    return json.loads((shapes / 'annotations/instances_train.json').read_text())


@pytest.fixture
def written(tmp_path):
    def write(content: object) -> Path:
        path = tmp_path / 'ann.json'
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def without(key):
    return lambda record: record.pop(key)


def with_(**values):
    return lambda record: record.update(values)


def rle(counts, size=(64, 64)):
    return with_(segmentation=dict(size=list(size), counts=counts))


WRONG = [
    ('images', without('id'), r'images\[1\] has no id'),
    ('images', without('file_name'), r'images\[1\] \(id 2\) has no file_name'),
    ('images', without('height'), r'images\[1\] \(id 2\) has no height'),
    ('images', with_(width='64'), r"has the width '64'; expected a whole number"),
    ('images', with_(width=0), 'has the width 0'),
    ('images', with_(width=64.5), 'has the width 64.5'),
    ('images', with_(width=10**9), 'cut it into tiles'),
    ('images', with_(id=1), r'\(id 1\) has the id of images\[0\]'),
    ('images', with_(id=True), 'has the id True'),
    ('images', with_(id='two'), 'images have numbers and names as ids'),
    ('images', with_(file_name='a\0.jpg'), 'expected a name in UTF-8'),
    ('images', with_(file_name='a\udcff.jpg'), 'expected a name in UTF-8'),
    ('categories', without('id'), r'categories\[1\] has no id'),
    ('categories', without('name'), r'categories\[1\] \(id 2\) has no name'),
    ('categories', with_(id='k'), 'categories have numbers and names as ids'),
    ('categories', with_(id=1), r'has the id of categories\[0\]'),
    ('categories', with_(name='circle'), r"name 'circle' of categories\[0\] \(id 1\)"),
    ('annotations', without('id'), r'annotations\[1\] has no id'),
    ('annotations', with_(id=1), r'has the id of annotations\[0\]; number them anew'),
    ('annotations', with_(area=None), r'annotations\[1\] \(id 2\) has the area None'),
    ('annotations', with_(area=-1), 'expected a finite number, not negative'),
    ('annotations', with_(image_id=[1]), r'has the image_id \[1\]'),
    ('annotations', with_(image_id=99), 'image_id 99, which none of the images has'),
    ('annotations', with_(category_id=9), 'category_id 9, which none of the categ'),
    ('annotations', with_(bbox=[1, 2, 3]), r'has the bbox \[1, 2, 3\]; expected four'),
    ('annotations', with_(bbox=[1, 2, 3, NAN]), r'has the bbox \[1, 2, 3, nan\]'),
    ('annotations', with_(bbox=[1, 2, 3, '4']), 'has the bbox'),
    ('annotations', with_(bbox=[1, 2, 3, 10**400]), 'has the bbox'),
    ('annotations', with_(bbox=[1, 2, -3, 4]), 'not negative'),
    ('annotations', with_(iscrowd='0'), r"has the iscrowd '0'; expected 0 or 1"),
    ('annotations', with_(iscrowd=2), 'has the iscrowd 2'),
    ('annotations', with_(ignore=None), 'has the ignore None'),
    ('annotations', without('segmentation'), 'has no segmentation, which masks need'),
    ('annotations', with_(segmentation=[]), 'has no segmentation'),
    ('annotations', with_(segmentation=[[]]), 'expected polygons'),
    ('annotations', with_(segmentation=[[1, 1, 5, 5]]), 'expected polygons'),
    ('annotations', with_(segmentation=[[1, 1, 5, 5, 1, 9, 3]]), 'expected polygons'),
    ('annotations', with_(segmentation=[[1, 1, 5, 5, 1, NAN]]), 'expected polygons'),
    ('annotations', with_(segmentation=[1, 1, 5, 5, 1, 9]), 'expected polygons'),
    ('annotations', with_(segmentation=[[1, 1, 1e9, 5, 1, 9]]), 'pixels of the image'),
    (
        'annotations',
        with_(segmentation=[[0, 0, 600, 600] * 9000]),
        'pixels long; expected the outline',
    ),
    ('annotations', rle([64], (8, 8)), r'has a mask of the size \[8, 8\] in an image'),
    ('annotations', rle([64]), 'damaged counts'),
    ('annotations', rle([-1, 4097]), 'damaged counts'),
    ('annotations', rle([4096.0]), 'expected polygons'),
    ('annotations', rle('0'), 'damaged counts'),
    ('annotations', rle(None), 'expected polygons'),
]


@pytest.mark.parametrize(('part', 'change', 'said'), WRONG)
def test_a_wrong_record_is_named(content, written, part, change, said):
    change(content[part][1])
    path = written(content)
    with pytest.raises(UserError, match=said) as error:
        check_annotations(path, BOTH)
    assert str(error.value).startswith(f'{path}: {part}')


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('', 'is empty'),
        ('{"images": [', 'is not JSON'),
        ('[' * 100_000, 'is not JSON'),
        ('[]', 'it holds a list'),
        ('{"images": [], "categories": []}', 'no list annotations'),
        ('{"images": {}, "annotations": [], "categories": []}', 'no list images'),
        ('{"images": [], "annotations": [], "categories": [1]}', 'lists no images'),
        ('{"images": [1], "annotations": [], "categories": []}', 'lists no categories'),
        ('{"images": [1], "annotations": [], "categories": [1]}', 'expected an object'),
    ],
)
def test_not_coco(written, text, said):
    path = written(text)
    with pytest.raises(UserError, match=said) as error:
        check_annotations(path)
    assert str(path) in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (with_(bbox=[1, 1, 0.5, 9]), '1 boxes are narrower than a pixel'),
        (with_(bbox=[70, 1, 9, 9]), '1 boxes lie outside their image'),
        (with_(bbox=[50, 1, 40, 9]), '1 boxes reach beyond their image'),
        (with_(area=0), '1 areas are 0'),
        (with_(area=9999), '1 areas are larger than their box'),
        (with_(segmentation=[[0.1, 0.1, 0.2, 0.1, 0.2, 0.3]]), '1 masks lie outside'),
        (with_(segmentation=[[1, 1, 90, 1, 90, 90]]), '1 polygons reach beyond'),
    ],
)
def test_what_is_odd_is_counted(content, written, change, said):
    change(content['annotations'][0])
    notes = check_annotations(written(content), BOTH)[1]
    assert any(said in note for note in notes)


def test_what_is_right_has_no_note(shapes):
    path = shapes / 'annotations/instances_train.json'
    content, notes = check_annotations(path, BOTH)
    assert content == json.loads(path.read_text())
    assert notes == []


@pytest.mark.parametrize(
    ('unit', 'said'),
    [
        (lambda x, y, w, h: [x / 64, y / 64, w / 64, h / 64], 'fractions of the image'),
        (lambda x, y, w, h: [x, y, x + w, y + h], 'as x1, y1, x2, y2 would'),
    ],
)
def test_boxes_in_another_unit(content, written, unit, said):
    for annotation in content['annotations']:
        annotation['bbox'] = unit(*annotation['bbox'])
    with pytest.raises(UserError, match=said):
        check_annotations(written(content))


def test_what_masks_need_is_not_asked_of_boxes(content, written):
    for annotation in content['annotations']:
        del annotation['segmentation']
    check_annotations(written(content), ['bbox'])


def test_unannotated_root_categories_are_fine(content, written):
    content['categories'].insert(0, dict(id=0, name='shapes', supercategory='none'))
    path = written(content)
    check_classes(
        str(path),
        check_annotations(path)[0],
        ('circle', 'square', 'triangle'),
        'train_dataloader',
    )


def test_the_twin_without_annotations_is_the_one_to_remove(content, written):
    content['categories'].insert(0, dict(id=0, name='circle', supercategory='none'))
    with pytest.raises(UserError, match=r'remove categories\[0\], which no annotation'):
        check_annotations(written(content))


@pytest.mark.parametrize(
    ('classes', 'said'),
    [
        (('circle', 'square'), None),
        (('circle', 'sqare', 'triangle'), r"first 'sqare' \(did you mean square\?\)"),
        (('cat', 'dog'), '2 of the 2 classes of here are no category'),
        (('square', 'circle'), r"write classes=\('circle', 'square'\)"),
        (('circle', 'circle'), "have 'circle' twice"),
    ],
)
def test_classes_beside_categories(content, classes, said):
    if said is None:
        check_classes('a.json', content, classes, 'here')
        return
    with pytest.raises(UserError, match=said):
        check_classes('a.json', content, classes, 'here')


def test_run_lengths_are_read_as_pycocotools_writes_them():
    rng = np.random.default_rng(0)
    masks = [
        np.asfortranarray(rng.random((rng.integers(1, 90), rng.integers(1, 90))) < p)
        for p in (0, 1, *rng.random(40))
    ]
    packed = [coco_mask.encode(mask.astype(np.uint8)) for mask in masks]
    texts = [dict(size=list(m.shape), counts=p['counts'].decode())
             for m, p in zip(masks, packed, strict=True)]  # fmt: skip
    assert fills_image(texts).all()
    shorter = [{**one, 'size': [one['size'][0], one['size'][1] + 1]} for one in texts]
    assert not fills_image(shorter).any()


def test_a_file_is_parsed_once_and_let_go(content, written, monkeypatch):
    path = written(content)
    parsed = read_json(path)
    hand_on(path, parsed, 2)
    monkeypatch.setattr(json, 'loads', None)
    first, second = SharedCOCO(str(path)), SharedCOCO(str(path))
    assert first.dataset is second.dataset is parsed
    assert first.get_ann_ids(img_ids=[1])
    assert first.img_ann_map[1]
    monkeypatch.undo()
    assert read_json(path) is not parsed
    hand_on(path, parsed, 1)
    path.write_text(path.read_text() + ' ')
    assert read_json(path) is not parsed

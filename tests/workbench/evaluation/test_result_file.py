"""A wrong result file is answered with one sentence that names what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gn_det.workbench.errors import UserError
from gn_det.workbench.evaluation.result_file import (
    check_results,
    kinds_of,
    load_truth,
    read_results,
)

MASK = dict(size=[64, 64], counts='R24l1000ng3')


@pytest.fixture
def truth(shapes) -> dict:
    return load_truth(shapes / 'annotations/instances_val.json', ['bbox', 'segm'])


@pytest.fixture
def right(truth) -> dict:
    return dict(
        image_id=truth['images'][0]['id'],
        category_id=truth['categories'][0]['id'],
        bbox=[1, 2, 3, 4.5],
        score=0.5,
        segmentation=MASK,
    )


def written(tmp_path: Path, content: object) -> Path:
    path = tmp_path / 'results.json'
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def load_results(path, truth, kinds=None) -> tuple[list[dict], list[str]]:
    """What `tools/eval_results.py` does with a result file."""
    results = read_results(path)
    kinds = kinds or kinds_of(results)
    check_results(path, results, truth, kinds)
    return results, kinds


def test_kinds_are_those_the_detections_have(truth, right, tmp_path):
    for fields, kinds in (
        (['bbox'], ['bbox']),
        (['segmentation'], ['segm']),
        (['bbox', 'segmentation'], ['bbox', 'segm']),
    ):
        kept = ['image_id', 'category_id', 'score', *fields]
        result = {key: right[key] for key in kept}
        path = written(tmp_path, [result])
        assert load_results(path, truth) == ([result], kinds)
    assert load_results(written(tmp_path, []), truth) == ([], ['bbox'])


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (dict(image_id=10**6), 'image_id of 1 of 2 detections is not in'),
        (dict(category_id=77), r'category_id .* first 77 of detection \[1\]'),
        (dict(category_id=[1]), r'category_id of detection \[1\] is \[1\]'),
        (dict(score='high'), r'score of detection \[1\] is high; expected a number'),
        (dict(score=float('nan')), r'score of detection \[1\] is nan'),
        (
            dict(bbox=[1, 2, 3]),
            r'bbox of detection \[1\] is \[1, 2, 3\]; exp',
        ),
        (dict(bbox=[1, 2, 3, float('inf')]), r'bbox of detection \[1\]'),
        (dict(segmentation=[[1, 2, 3, 4, 5, 6]]), 'expected compressed RLE'),
        (
            dict(segmentation=dict(size=[32, 64], counts='PPo1')),
            r'mask of detection \[1\] is of size \[32, 64\], image .* of \[64, 64\]',
        ),
        (
            dict(segmentation=dict(size=[64, 64], counts='hello world')),
            r'counts of detection \[1\] are damaged',
        ),
        (
            dict(segmentation=dict(size=[64, 64], counts='\xff\xfc')),
            r'counts of detection \[1\] are damaged',
        ),
    ],
)
def test_a_wrong_detection_is_named(truth, right, tmp_path, change, said):
    path = written(tmp_path, [right, right | change])
    with pytest.raises(UserError, match=said) as error:
        load_results(path, truth)
    assert str(path) in str(error.value)


@pytest.mark.parametrize('field', ['image_id', 'category_id', 'score', 'bbox'])
def test_a_missing_field_is_named(truth, right, tmp_path, field):
    right = {key: value for key, value in right.items() if key != field}
    with pytest.raises(UserError, match=rf'detection \[0\] has no {field}'):
        load_results(written(tmp_path, [right]), truth, ['bbox'])


def test_masks_are_asked_for_and_missing(truth, right, tmp_path):
    del right['segmentation']
    with pytest.raises(UserError, match=r'detection \[0\] has no segmentation'):
        load_results(written(tmp_path, [right]), truth, ['segm'])


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        ('[{"image_id": 1', 'is not JSON'),
        ({'annotations': []}, 'it holds a dict; expected a list of detections'),
        ([1], r'detection \[0\] has no image_id'),
    ],
)
def test_not_a_result_file(truth, tmp_path, content, said):
    with pytest.raises(UserError, match=said):
        load_results(written(tmp_path, content), truth)


def test_missing_files(truth, tmp_path):
    with pytest.raises(UserError, match='result file not found'):
        load_results(tmp_path / 'none.json', truth)
    with pytest.raises(UserError, match='annotation file not found'):
        load_truth(tmp_path / 'none.json')


def test_annotations_that_cannot_be_evaluated(shapes, tmp_path):
    content = json.loads((shapes / 'annotations/instances_val.json').read_text())
    del content['annotations'][1]['area']
    with pytest.raises(UserError, match=r'annotations\[1\] has no area'):
        load_truth(written(tmp_path, content))
    del content['annotations']
    with pytest.raises(UserError, match='no list annotations'):
        load_truth(written(tmp_path, content))


def without(key):
    def change(record: dict) -> None:
        del record[key]

    return change


def with_(**values):
    return lambda record: record.update(values)


@pytest.mark.parametrize(
    ('part', 'change', 'said'),
    [
        ('images', without('id'), r'images\[1\] has no id'),
        ('images', without('height'), r'images\[1\] has no height'),
        ('images', with_(width='64'), r'width of images\[1\] is 64; expected pixels'),
        ('images', with_(id='two'), 'images have numbers and names as ids'),
        ('categories', without('id'), r'categories\[1\] has no id'),
        ('categories', without('name'), r'categories\[1\] has no name'),
        ('categories', with_(id='k'), 'categories have numbers and names as ids'),
        ('annotations', with_(area=None), r'area of annotations\[1\] is None'),
        ('annotations', with_(image_id=[1]), r'image_id of annotations\[1\] is \[1\]'),
        ('annotations', with_(bbox=[1, 2, 3]), r'bbox of annotations\[1\] is \[1, 2'),
        (
            'annotations',
            with_(segmentation=None),
            r'segmentation of annotations\[1\] is None; expected polygons',
        ),
        ('annotations', with_(segmentation=[]), 'expected polygons'),
        ('annotations', with_(segmentation=[[1, 1, 5, 5]]), 'expected polygons'),
        ('annotations', with_(segmentation=[[1, 1, 5, 5, 1]]), 'expected polygons'),
        (
            'annotations',
            with_(segmentation=dict(size=[8, 8], counts=[64])),
            r'mask of annotations\[1\] is of size \[8, 8\], image',
        ),
    ],
)
def test_a_wrong_record_of_the_truth_is_named(shapes, tmp_path, part, change, said):
    content = json.loads((shapes / 'annotations/instances_val.json').read_text())
    change(content[part][1])
    path = written(tmp_path, content)
    with pytest.raises(UserError, match=said) as error:
        load_truth(path, ['bbox', 'segm'])
    assert str(path) in str(error.value)


def test_what_masks_need_is_not_asked_of_boxes(shapes, tmp_path):
    content = json.loads((shapes / 'annotations/instances_val.json').read_text())
    for annotation in content['annotations']:
        del annotation['segmentation']
    del content['images'][0]['height']
    load_truth(written(tmp_path, content), ['bbox'])


def test_categories_that_are_words(shapes, tmp_path):
    content = json.loads((shapes / 'annotations/instances_val.json').read_text())
    content['categories'] = ['a', 'b', 'c']
    with pytest.raises(UserError, match=r'categories\[0\] has no name'):
        load_truth(written(tmp_path, content))


def test_a_large_file_is_looked_at_as_closely(tmp_path, monkeypatch):
    monkeypatch.setattr('gn_det.workbench.inputs.data._PARSE_LIMIT_BYTES', 10)
    path = written(tmp_path, dict(images=1, annotations=[], categories=[]))
    with pytest.raises(UserError, match='no list images'):
        load_truth(path)

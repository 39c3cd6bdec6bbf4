"""A wrong result file is answered with one sentence that names what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gn_det.errors import UserError
from gn_det.evaluation.result_file import load_results, load_truth

MASK = dict(size=[64, 64], counts='PPo1')


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

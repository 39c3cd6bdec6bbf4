"""A wrong result file is answered with one sentence that names what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.annotations import (
    check_annotations,
    check_results,
    kinds_of,
    read_results,
)

MASK = dict(size=[64, 64], counts='R24l1000ng3')


@pytest.fixture
def truth(shapes) -> dict:
    path = shapes / 'annotations/instances_val.json'
    return check_annotations(path, ['bbox', 'segm'])[0]


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
        (dict(image_id=10**6), r'\[1\] has the image_id 1000000, .* of 1 of 2 det'),
        (dict(category_id=77), r'\[1\] has the category_id 77, which is not in'),
        (dict(category_id=[1]), r'\[1\] has the category_id \[1\]'),
        (dict(score='high'), r"\[1\] has the score 'high'; expected a finite number"),
        (dict(score=float('nan')), r'\[1\] has the score nan'),
        (dict(score=True), r'\[1\] has the score True'),
        (dict(bbox=[1, 2, 3]), r'\[1\] has the bbox \[1, 2, 3\]; expected four'),
        (dict(bbox=[1, 2, 3, float('inf')]), r'\[1\] has the bbox'),
        (dict(bbox=[1, 2, -3, 4]), r'\[1\] has the bbox .* not negative'),
        (dict(segmentation=[[1, 2, 3, 4, 5, 6]]), 'expected compressed RLE'),
        (
            dict(segmentation=dict(size=[32, 64], counts='PPo1')),
            r'\[1\] has a mask of the size \[32, 64\] in an image of \[64, 64\]',
        ),
        *(
            (dict(segmentation=dict(size=[64, 64], counts=counts)), 'damaged counts')
            for counts in (
                'hello world',
                '\xff\xfc',
                '',
                '0',
                'R24l1000ng',
                'oooooooo0',
            )
        ),
    ],
)
def test_a_wrong_detection_is_named(truth, right, tmp_path, change, said):
    path = written(tmp_path, [right, right | change])
    with pytest.raises(UserError, match=said) as error:
        load_results(path, truth)
    assert f'{path}: detections[1]' in str(error.value)


@pytest.mark.parametrize('field', ['image_id', 'category_id', 'score', 'bbox'])
def test_a_missing_field_is_named(truth, right, tmp_path, field):
    right = {key: value for key, value in right.items() if key != field}
    with pytest.raises(UserError, match=rf'detections\[0\] has no {field}'):
        load_results(written(tmp_path, [right]), truth, ['bbox'])


def test_masks_are_asked_for_and_missing(truth, right, tmp_path):
    del right['segmentation']
    with pytest.raises(UserError, match=r'detections\[0\] has no segmentation'):
        load_results(written(tmp_path, [right]), truth, ['segm'])


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        ('[{"image_id": 1', 'is not JSON'),
        ({'annotations': []}, 'it holds a dict; expected a list of detections'),
        ([1], r'detections\[0\] is 1; expected an object'),
    ],
)
def test_not_a_result_file(truth, tmp_path, content, said):
    with pytest.raises(UserError, match=said):
        load_results(written(tmp_path, content), truth)


def test_missing_files(truth, tmp_path):
    with pytest.raises(UserError, match='result file not found'):
        load_results(tmp_path / 'none.json', truth)

"""What is kept beside the results is what was evaluated, whole or refused."""

from __future__ import annotations

import contextlib
import copy
import json
import random

import pytest
from pycocotools.coco import COCO

from gn_det.workbench.errors import UserError
from gn_det.workbench.evaluation.coco_scores import IOU_THRESHOLDS, Comparison
from gn_det.workbench.evaluation.kept_scores import (
    SCORE_THRESHOLD,
    kept_scores,
    read_scores,
    write_scores,
)
from tests.workbench.report.conftest import results_of


@pytest.fixture(scope='module')
def comparisons(shapes):
    truth = COCO(shapes / 'annotations/instances_val.json')
    return {
        kind: Comparison(truth.dataset, results_of(truth, kind), kind)
        for kind in ('bbox', 'segm')
    }


@pytest.fixture
def kept(comparisons):
    return {
        kind: kept_scores(one, one.scores(), IOU_THRESHOLDS)
        for kind, one in comparisons.items()
    }


def test_what_is_written_is_read(kept, tmp_path):
    write_scores(tmp_path / 'a.scores.json', kept)
    written, read = read_scores(tmp_path / 'a.scores.json')
    assert written > 1.7e9
    assert read == kept


def test_best_and_worst_are_ranked_and_none_is_both(kept, comparisons):
    for kind, one in kept.items():
        f1 = comparisons[kind].image_f1(SCORE_THRESHOLD)
        shown = [*one.best, *one.worst[::-1]]
        assert [image.f1 for image in shown] == sorted(f1.values(), reverse=True)
        assert len({image.file_name for image in shown}) == 4
        for image in shown:
            assert image.truth
            assert all(found.score >= SCORE_THRESHOLD for found in image.found)
            assert all((o.mask is not None) == (kind == 'segm') for o in image.truth)


def test_names_that_cannot_be_shown(comparisons, tmp_path):
    """Escapes stand for control characters; such files are none to be shown."""
    one = comparisons['segm']
    truth = copy.deepcopy(one.truth)
    truth['categories'][0]['name'] = 'a\0\ud800'
    truth['images'][0]['file_name'] = '\udcff.jpg'
    renamed = Comparison(truth, one.results, 'segm')
    kept = kept_scores(renamed, renamed.scores(), IOU_THRESHOLDS)
    write_scores(tmp_path / 'a.scores.json', {'segm': kept})
    _, read = read_scores(tmp_path / 'a.scores.json')
    assert next(iter(read['segm'].class_ap)) == r'a\x00\ud800'
    assert len((*read['segm'].best, *read['segm'].worst)) == 3


def test_damage_of_any_byte_is_read_or_named(kept, tmp_path):
    """Nothing but a UserError, and no number out of its range."""
    path = tmp_path / 'a.scores.json'
    write_scores(path, kept)
    whole = path.read_bytes()
    chosen = random.Random(0)
    for _ in range(300):
        place, byte = chosen.randrange(len(whole)), chosen.randrange(256)
        path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
        with contextlib.suppress(UserError):
            _, read = read_scores(path)
            values = [v for one in read.values() for v in one.values.values()]
            assert all(abs(value) <= 1 for value in values)


@pytest.mark.parametrize(
    'change',
    [
        lambda one: one.pop('values'),
        lambda one: one['values'].update(mAP='0.5'),
        lambda one: one['values'].update(mAP=float('nan')),
        lambda one: one['class_ap'].update(circle=7),
        lambda one: one.update(class_ap=[1]),
        lambda one: one.update(precision=[[0.5]] * 10),
        lambda one: one['precision'][0].append(1),
        lambda one: one['best'][0].update(f1=10**400),
        lambda one: one['best'][0].update(file_name=['a']),
        lambda one: one['best'][0].update(file_name='a\0b'),
        lambda one: one['best'][0]['truth'][0].update(box=[1, 2, 3]),
        lambda one: one['best'][0]['truth'][0].update(box=[1, 2, 3, float('inf')]),
        lambda one: one['best'][0]['truth'][0]['mask'].update(size=[10**9, 10**9]),
    ],
)
def test_what_was_never_written_is_refused(kept, tmp_path, change):
    path = tmp_path / 'a.scores.json'
    write_scores(path, kept)
    content = json.loads(path.read_text())
    change(content['kinds']['segm'])
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match='is damaged'):
        read_scores(path)

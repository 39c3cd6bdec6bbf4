"""From a checkpoint to a table, to result files, and from those to the same table."""

from __future__ import annotations

import json

import pytest
import torch
from mmdet.registry import MODELS

import gn_det.models  # noqa: F401  (registers the detector)
from gn_det.workbench.inputs.config import load_config
from gn_det.workbench.report.run_log import read_test_scores
from tests.running import CONFIG, REPOSITORY, assert_success, call, run_tool, user_error

# Twenty detections in every image, whatever their scores.
FEW = ('model.test_cfg.rcnn.score_thr=0.0', 'model.test_cfg.rcnn.max_per_img=20')


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Weights that were never trained."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights') / 'model.pth'
    cfg = load_config(str(REPOSITORY / CONFIG))
    torch.save(MODELS.build(cfg.model).state_dict(), path)
    return path


def rows(text: str) -> list[list[str]]:
    """The cells of printed tables."""
    return [line.replace('│', ' ').split() for line in text.splitlines()]


@pytest.fixture(scope='module')
def tested(shapes, checkpoint, tmp_path_factory):
    """The work directory of a test run by pycocotools, and what it said."""
    work_dir = tmp_path_factory.mktemp('tested')
    done = run_tool(
        'test.py', CONFIG, checkpoint, '--work-dir', work_dir, '--classwise',
        '--evaluator', 'pycocotools', '--cfg-options', f'data_root={shapes}', *FEW,
    )  # fmt: skip
    assert_success(done)
    return work_dir, done.stdout


def test_a_test_run_prints_its_tables_and_keeps_its_results(tested):
    work_dir, said = tested
    figures = read_test_scores(work_dir)
    cells = rows(said)
    for kind, name in (('bbox', 'box'), ('segm', 'mask')):
        (row,) = [line for line in cells if line[:1] == [name] and len(line) == 8]
        assert row[1] == f'{100 * figures[f"coco/{kind}_mAP"]:.1f}'
        assert row[-1] == f'{100 * figures[f"coco/{kind}_AR@100"]:.1f}'
        results = json.loads((work_dir / f'results.{kind}.json').read_text())
        assert len(results) == 4 * 20
    assert [line[0] for line in cells if line[:1] == ['triangle']] == ['triangle']
    assert 'nothing to compare with: the zoo has' in said
    assert 'on generated shapes' in said


def test_result_files_give_the_same_row_by_the_other_evaluator(tested, shapes):
    work_dir, said = tested
    truth = shapes / 'annotations/instances_val.json'
    done = call(
        'eval', work_dir / 'results.segm.json', truth,
        '--iou-type', 'segm', '--classwise',
    )  # fmt: skip
    assert_success(done)
    cells = rows(done.stdout)
    (masks,) = [line for line in cells if line[:1] == ['mask']]
    (triangle,) = [line for line in cells if line[:1] == ['triangle']]
    assert masks in rows(said)
    assert any(
        line[:1] == ['triangle'] and line[2:] == triangle[1:] for line in rows(said)
    )


def test_result_files_of_other_images(tested, shapes):
    work_dir, _ = tested
    truth = json.loads((shapes / 'annotations/instances_val.json').read_text())
    for record in truth['images']:
        record['id'] += 1000
    for record in truth['annotations']:
        record['image_id'] += 1000
    other = work_dir / 'other.json'
    other.write_text(json.dumps(truth))
    said = user_error(call('eval', work_dir / 'results.bbox.json', other))
    assert 'not in the annotation file, as those of 80 of 80 detections' in said


def test_no_detection_is_a_row_of_zeros(shapes, tmp_path):
    empty = tmp_path / 'empty.json'
    empty.write_text('[]')
    done = call('eval', empty, shapes / 'annotations/instances_val.json')
    assert ['box', *['0.0'] * 7] in rows(done.stdout)
    assert 'empty.json has no detection' in done.stderr


def test_results_for_a_server_from_images_without_annotations(
    shapes, checkpoint, tmp_path
):
    content = json.loads((shapes / 'annotations/instances_val.json').read_text())
    del content['annotations']
    bare = tmp_path / 'image_info_test-dev.json'
    bare.write_text(json.dumps(content))
    work_dir = tmp_path / 'work'
    done = run_tool(
        'test.py', CONFIG, checkpoint, '--work-dir', work_dir, '--format-only',
        '--cfg-options', f'data_root={shapes}', *FEW,
        f'test_dataloader.dataset.ann_file={bare}', f'test_evaluator.ann_file={bare}',
    )  # fmt: skip
    assert_success(done)
    assert 'AP50' not in done.stdout
    for kind in ('bbox', 'segm'):
        path = work_dir / f'results.{kind}.json'
        assert f'results are in {path}' in done.stdout
        assert len(json.loads(path.read_text())) == 4 * 20

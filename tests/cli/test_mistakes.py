"""Mistakes people make: one line on stderr, exit code 2, nothing written."""

from __future__ import annotations

import json

import pytest

from gn_det.workbench.datasets import ShapesSpec, generate_shapes
from tests.running import CONFIG, call, user_error


@pytest.fixture
def in_tmp(tmp_path):
    """A work directory that must not come into being."""
    work_dir = tmp_path / 'work'
    yield work_dir
    assert not work_dir.exists()


def test_config_not_found(in_tmp):
    wrong = 'configs/gn/mask_rcnn_r50_fpn_gn-all_2x.py'
    said = user_error(call('train', wrong, '--work-dir', in_tmp))
    assert f'config not found: {wrong} (did you mean configs/gn/' in said


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_dataset_folder_not_found(tool, in_tmp, tmp_path):
    arguments = [CONFIG, *(['x.pth'] if tool == 'test' else [])]
    options = ('--cfg-options', f'data_root={tmp_path / "nowhere"}')
    done = call(tool, *arguments, '--work-dir', in_tmp, *options)
    said = user_error(done)
    assert f'dataset folder not found: {tmp_path}/nowhere' in said
    assert '--cfg-options data_root=PATH' in said


def test_annotations_that_are_not_coco(in_tmp, tmp_path):
    folder = tmp_path / 'data' / 'annotations'
    folder.mkdir(parents=True)
    for name in ('train', 'val'):
        (folder.parent / name).mkdir()
        (folder / f'instances_{name}.json').write_text(json.dumps([1, 2]))
    options = ('--cfg-options', f'data_root={folder.parent}')
    said = user_error(call('train', CONFIG, '--work-dir', in_tmp, *options))
    assert 'instances_train.json is not COCO JSON: it holds a list' in said


def test_checkpoint_not_found(shapes, tmp_path):
    done = call(
        'test', CONFIG, tmp_path / 'no.pth', '--work-dir', tmp_path,
        '--cfg-options', f'data_root={shapes}',
    )  # fmt: skip
    assert f'checkpoint not found: {tmp_path}/no.pth' in user_error(done)


def test_checkpoint_that_is_something_else(shapes, in_tmp):
    done = call(
        'test', CONFIG, 'README.md', '--work-dir', in_tmp,
        '--cfg-options', f'data_root={shapes}',
    )  # fmt: skip
    assert 'README.md is not a checkpoint' in user_error(done)


def test_resume_from_a_file_that_is_not_there(in_tmp, tmp_path):
    done = call('train', CONFIG, '--work-dir', in_tmp, '--resume', tmp_path / 'no.pth')
    assert 'checkpoint not found' in user_error(done)


def test_option_without_a_value(in_tmp):
    done = call('train', CONFIG, '--work-dir', in_tmp, '--cfg-options', 'lr')
    assert "expected KEY=VALUE, got 'lr'" in user_error(done)


def test_launcher_that_was_not_launched(in_tmp, shapes):
    done = call(
        'train', CONFIG, '--work-dir', in_tmp, '--launcher', 'pytorch',
        '--cfg-options', f'data_root={shapes}',
    )  # fmt: skip
    assert 'start it with torchrun --nproc-per-node' in user_error(done)


def test_out_that_is_not_a_pickle(in_tmp):
    done = call('test', CONFIG, 'x.pth', '--out', 'x.json', '--work-dir', in_tmp)
    assert '--out: expected a .pkl file, got x.json' in user_error(done)


def test_shapes_over_something_else(tmp_path):
    (tmp_path / 'precious.txt').write_text('x')
    said = user_error(call('shapes', tmp_path))
    assert 'is not a generated set of shapes' in said
    assert [p.name for p in tmp_path.iterdir()] == ['precious.txt']


def test_a_replaced_set_is_told(tmp_path):
    root = tmp_path / 'set'
    generate_shapes(root, ShapesSpec(num_train=2, num_val=1, height=64, width=64))
    small = ('--num-val', 1, '--height', 64, '--width', 64)
    done = call('shapes', root, '--num-train', 3, *small)
    assert 'replaced the set that was there (num_train 2, now 3)' in done.stdout


def test_no_images_asked_for(tmp_path):
    done = call('shapes', tmp_path / 'set', '--num-train', 0)
    assert 'num_train must be at least 1' in user_error(done)

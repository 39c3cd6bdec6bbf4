"""Configs: wrong paths, options, the data root and the work directory."""

from __future__ import annotations

import pytest

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.config import load_config

GN_CONFIG = 'configs/gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py'


@pytest.fixture(autouse=True)
def in_repository(monkeypatch, repository):
    monkeypatch.chdir(repository)


def test_wrong_name_lists_near_ones():
    wrong = 'configs/gn/mask_rcnn_r50_fpn_gn_2x_coco.py'
    with pytest.raises(UserError, match='config not found') as error:
        load_config(wrong)
    assert GN_CONFIG in str(error.value)
    assert '\n' not in str(error.value)


def test_name_like_nothing_lists_nothing():
    with pytest.raises(UserError, match=r'config not found: zzz\.py$'):
        load_config('zzz.py')


def test_folder_is_not_a_config():
    with pytest.raises(UserError, match='config not found: configs'):
        load_config('configs')


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('model = dict(', 'was never closed'),
        ("_base_ = 'absent.py'\n", r'absent\.py'),
        ("custom_imports = dict(imports=['no_such_module_x'])", 'no_such_module_x'),
    ],
)
def test_unreadable_config_says_why_in_one_line(tmp_path, text, reason):
    path = tmp_path / 'broken.py'
    path.write_text(text)
    with pytest.raises(UserError, match=reason) as error:
        load_config(str(path))
    assert str(path) in str(error.value)
    assert '\n' not in str(error.value)


def test_work_dir_order():
    assert load_config(GN_CONFIG).work_dir.endswith(
        'work_dirs/mask-rcnn_r50_fpn_gn-all_2x_coco'
    )
    assert load_config(GN_CONFIG, {'work_dir': 'from_option'}).work_dir == 'from_option'
    assert load_config(GN_CONFIG, work_dir='from_flag').work_dir == 'from_flag'


def test_options_override():
    cfg = load_config(GN_CONFIG, {'train_cfg.max_epochs': 3})
    assert cfg.train_cfg.max_epochs == 3


def test_option_that_does_not_fit():
    with pytest.raises(UserError, match='--cfg-options does not fit'):
        load_config(GN_CONFIG, {'param_scheduler.7.gamma': 0.1})


def test_data_root_moves_every_dataset_and_annotation_file(tmp_path):
    cfg = load_config(GN_CONFIG, {'data_root': str(tmp_path)})
    root = f'{tmp_path}/'
    assert cfg.data_root == root
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.data_root == root
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert evaluator.ann_file == f'{root}annotations/instances_val2017.json'


def test_data_root_needs_one_in_the_config(tmp_path):
    path = tmp_path / 'bare.py'
    path.write_text('model = dict()\n')
    with pytest.raises(UserError, match='has no data_root'):
        load_config(str(path), {'data_root': 'x'})

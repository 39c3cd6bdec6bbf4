"""Configs: wrong paths, options, the data root and the work directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import Resize
from mmdet.registry import DATASETS, TRANSFORMS

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs import settings
from gn_det.workbench.inputs.building import registered, type_name
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


class TestSettings:
    """Numbers that are none, and names that nothing reads."""

    @pytest.mark.parametrize(
        ('options', 'said'),
        [
            (
                {'train_dataloader.batch_size': 0},
                r'batch_size of .* is 0; expect',
            ),
            ({'val_dataloader.batch_size': 'two'}, "batch_size of .* is 'two'"),
            ({'test_dataloader.num_workers': -1}, 'num_workers of .* is -1'),
            ({'train_cfg.max_epochs': 'ten'}, "max_epochs of .* is 'ten'"),
            ({'optim_wrapper.optimizer.lr': 'fast'}, "optimizer.lr of .* is 'fast'"),
            ({'optim_wrapper.optimizer.lr': -1.0}, 'optimizer.lr of .* is -1.0'),
            ({'trian_cfg.max_epochs': 3}, r'trian_cfg .*did you mean train_cfg\?'),
            ({'load_form': 'x.pth'}, r'load_form .*did you mean load_from\?'),
        ],
    )
    def test_a_wrong_one_is_named(self, options, said):
        with pytest.raises(UserError, match=said):
            load_config(GN_CONFIG, options)

    def test_without_workers_nothing_is_kept_or_fetched_ahead(self):
        options = {
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': True,
            'train_dataloader.prefetch_factor': 2,
        }
        loader = load_config(GN_CONFIG, options).train_dataloader
        assert not {'persistent_workers', 'prefetch_factor'} & set(loader)

    def test_a_name_no_part_uses_is_told(self, tmp_path, monkeypatch):
        lines = []
        # Where it goes depends on the loggers that other tests have made.
        monkeypatch.setattr(settings, 'print_log', lambda line, **_: lines.append(line))
        path = tmp_path / 'own.py'
        text = f'_base_ = {str(Path(GN_CONFIG).resolve())!r}\n'
        path.write_text(text + "norm_cfg = dict(type='BN')\nscale = 2\nlr = scale\n")
        load_config(str(path))
        said = ''.join(lines)
        assert 'norm_cfg of' in said
        assert 'lr of' in said
        assert 'scale of' not in said


NEW_STYLE = """
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import PackDetInputs, Resize
from mmengine.config import read_base
from gn_det.models import FusedMaskRCNN
from torch.optim import SGD
default_scope = {scope!r}
pipeline = [dict(type=LoadImageFromFile), dict(type=Resize), dict(type=PackDetInputs)]
test_dataloader = dict(dataset=dict(type=CocoDataset, pipeline=pipeline))
model = dict(type=FusedMaskRCNN)
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1))
"""


@pytest.mark.parametrize('scope', ['mmdet', None])
def test_a_new_style_config_is_read_as_one_of_text(tmp_path, scope):
    path = tmp_path / 'new.py'
    path.write_text(NEW_STYLE.format(scope=scope))
    cfg = load_config(str(path))
    dataset = cfg.test_dataloader.dataset
    kinds = [dataset.type, *(step.type for step in dataset.pipeline), cfg.model.type]
    assert all(isinstance(kind, str) for kind in kinds)
    if scope:
        assert kinds == [
            'CocoDataset', 'LoadImageFromFile', 'Resize', 'PackDetInputs',
            'FusedMaskRCNN',
        ]  # fmt: skip
    assert cfg.optim_wrapper.optimizer.type == 'SGD'
    assert registered(DATASETS, dataset.type) is CocoDataset
    assert registered(TRANSFORMS, dataset.pipeline[1].type) is Resize
    assert type_name(dataset) == 'CocoDataset'


def test_a_config_dumped_as_json_is_the_same(tmp_path):
    cfg = load_config(GN_CONFIG)
    cfg.dump(tmp_path / 'dumped.json')
    again = load_config(str(tmp_path / 'dumped.json'))
    assert json.dumps(again.to_dict()) == json.dumps(cfg.to_dict())
    assert again.train_dataloader.dataset.pipeline[2].scale == (1333, 800)
    (tmp_path / 'dumped.json').write_text('{"model": ')
    with pytest.raises(UserError, match='cannot read config'):
        load_config(str(tmp_path / 'dumped.json'))

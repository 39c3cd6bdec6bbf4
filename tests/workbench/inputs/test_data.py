"""Missing and wrong data get one line that says where it was looked for."""

from __future__ import annotations

import json
import shutil

import pytest
from mmengine.config import Config

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs import data as data_module
from gn_det.workbench.inputs.data import check_coco_file, check_data


def config(root, **dataset) -> Config:
    leaf = dict(
        type='CocoDataset',
        data_root=str(root),
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train/'),
        metainfo=dict(classes=('circle', 'square', 'triangle')),
    )
    leaf.update(dataset)
    return Config(dict(train_dataloader=dict(dataset=leaf)))


@pytest.fixture
def root(shapes, tmp_path):
    return shutil.copytree(shapes, tmp_path / 'shapes')


def error_of(cfg: Config, splits=('train',)) -> str:
    with pytest.raises(UserError) as caught:
        check_data(cfg, splits)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_good_data_pass(root):
    check_data(config(root), ('train', 'val'))


def test_missing_root_says_where_and_how(tmp_path):
    text = error_of(config(tmp_path / 'nowhere'))
    assert f'dataset folder not found: {tmp_path}/nowhere' in text
    assert 'train_dataloader' in text
    assert '--cfg-options data_root=PATH' in text


def test_missing_annotation_file(root):
    text = error_of(config(root, ann_file='annotations/other.json'))
    assert f'annotation file not found: {root}/annotations/other.json' in text


def test_missing_image_folder(root):
    text = error_of(config(root, data_prefix=dict(img='images/')))
    assert f'image folder not found: {root}/images' in text


def test_image_folder_of_another_split(root):
    shutil.rmtree(root / 'train')
    (root / 'train').mkdir()
    text = error_of(config(root))
    assert f'image not found: {root}/train/000001.jpg' in text


@pytest.mark.parametrize('metainfo', [None, dict(classes=('cat', 'dog'))])
def test_classes_that_are_not_in_the_file(root, metainfo):
    text = error_of(config(root, metainfo=metainfo))
    assert 'none of the classes of CocoDataset' in text
    assert '(circle, square, triangle)' in text


def test_inside_wrappers(root, tmp_path):
    leaf = config(tmp_path / 'nowhere').train_dataloader.dataset
    wrapped = dict(
        type='RepeatDataset',
        dataset=dict(
            type='ConcatDataset',
            datasets=[config(root).train_dataloader.dataset, leaf],
        ),
    )
    cfg = Config(dict(train_dataloader=dict(dataset=wrapped)))
    assert 'nowhere' in error_of(cfg)


def test_remote_data_are_not_looked_for():
    check_data(config('s3://bucket/coco/'), ('train',))
    check_data(config('coco/', backend_args=dict(backend='petrel')), ('train',))


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        ('', 'is not JSON'),
        ('{"images": [', 'is not JSON'),
        ('[]', 'it holds a list'),
        ('{"images": [], "categories": []}', 'no list annotations'),
        ('{"images": {}, "annotations": [], "categories": []}', 'no list images'),
        ('{"images": [], "annotations": [], "categories": []}', 'lists no images'),
        (
            '{"images": [{"id": 1}], "annotations": [], "categories": []}',
            'without a file_name',
        ),
    ],
)
def test_not_coco(tmp_path, content, reason):
    path = tmp_path / 'ann.json'
    path.write_text(content)
    with pytest.raises(UserError, match=reason) as error:
        check_coco_file(path)
    assert str(path) in str(error.value)


def test_test_set_without_truth_may_only_be_formatted(tmp_path):
    (tmp_path / 'a.jpg').write_bytes(b'')
    path = tmp_path / 'info.json'
    path.write_text('{"images": [{"file_name": "a.jpg"}], "categories": []}')
    dataset = dict(type='Own', data_root=str(tmp_path), ann_file='info.json')
    cfg = Config(
        dict(
            test_dataloader=dict(dataset=dataset),
            test_evaluator=dict(type='CocoAPMetric', format_only=True),
        )
    )
    check_data(cfg, ('test',))
    cfg.test_evaluator.format_only = False
    assert 'no list annotations' in error_of(cfg, ('test',))


class TestLargeFile:
    """Above the parse limit a file is scanned only."""

    @pytest.fixture(autouse=True)
    def no_parsing(self, monkeypatch):
        monkeypatch.setattr(data_module, '_PARSE_LIMIT_BYTES', 0)

    def test_good(self, root):
        assert check_coco_file(root / 'annotations/instances_train.json') is None

    def test_cut_short(self, root):
        path = root / 'annotations/instances_train.json'
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(UserError, match='cut short'):
            check_coco_file(path)

    def test_another_kind_of_json(self, tmp_path):
        path = tmp_path / 'results.json'
        path.write_text(json.dumps([dict(image_id=1)]))
        with pytest.raises(UserError, match='not COCO JSON'):
            check_coco_file(path)

    def test_part_missing(self, tmp_path):
        path = tmp_path / 'ann.json'
        path.write_text('{"images": [], "categories": []}')
        with pytest.raises(UserError, match='no list annotations'):
            check_coco_file(path)

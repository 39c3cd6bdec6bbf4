"""Missing and wrong data get one line that says where it was looked for."""

from __future__ import annotations

import json
import shutil

import pytest
from mmdet.datasets import CocoDataset
from mmdet.evaluation.metrics import coco_metric
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from PIL import Image

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.annotations import share_with_mmdet
from gn_det.workbench.inputs.annotations.reading import SharedCOCO
from gn_det.workbench.inputs.data import check_data

register_all_modules(init_default_scope=False)


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
    assert f'{root}/train/000001.jpg: there is no such file, and 11 more' in text


@pytest.mark.parametrize(
    ('metainfo', 'said'),
    [
        (None, '80 of the 80 classes'),
        (dict(classes=('square', 'circle')), 'in another order'),
    ],
)
def test_classes_that_are_not_in_the_file(root, metainfo, said):
    assert said in error_of(config(root, metainfo=metainfo))


@pytest.mark.parametrize(
    ('head', 'said'),
    [
        (dict(type='FCOSHead', num_classes=80), 'model.bbox_head.num_classes is 80'),
        (dict(type='Shared2FCBBoxHead'), 'model.bbox_head.num_classes is 80'),
        ([dict(type='Shared2FCBBoxHead', num_classes=2)], 'model.bbox_head.0.num_cl'),
        (dict(type='FCNMaskHead', class_agnostic=True), None),
        (dict(type='Shared2FCBBoxHead', num_classes=3), None),
    ],
)
def test_every_head_has_the_classes_of_the_data(root, head, said):
    cfg = config(root)
    cfg.model = dict(rpn_head=dict(type='RPNHead', num_classes=1), bbox_head=head)
    if said is None:
        check_data(cfg, ('train',))
    else:
        assert said in error_of(cfg)


def test_image_files_are_looked_at(root):
    image = root / 'train/000003.jpg'
    whole = image.read_bytes()
    for content, said in (
        (b'', 'the file is empty'),
        (whole[:50], 'not an image, or a damaged one'),
    ):
        image.write_bytes(content)
        text = error_of(config(root))
        assert said in text
        assert f'images[2] (id 3), {image}' in text
    image.unlink()
    assert 'there is no such file; check data_prefix.img' in error_of(config(root))


@pytest.mark.parametrize('orientation', [1, 6])
def test_an_image_of_another_size_than_the_file_says(root, orientation):
    image = Image.new('RGB', (48, 64))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(root / 'train/000001.jpg', exif=exif)
    size = '48 x 64' if orientation == 1 else '64 x 48'
    text = error_of(config(root))
    assert f'000001.jpg: it is {size} as it is decoded' in text


def test_broken_images_can_be_left_out(root):
    cfg = config(root)
    cfg.skip_broken_images = True
    for number, content in ((3, b''), (5, b'text')):
        (root / f'train/{number:06}.jpg').write_bytes(content)
    (root / 'train/000007.jpg').unlink()
    Image.new('RGB', (8, 8)).save(root / 'train/000009.jpg')
    said = check_data(cfg, ('train',))
    assert said[0].endswith('4 of 12 images are left out')
    names = [note.split('left out ')[1][:10] for note in said[1:]]
    assert names == ['000003.jpg', '000005.jpg', '000007.jpg', '000009.jpg']
    kept = SharedCOCO(str(root / 'annotations/instances_train.json'))
    assert kept.get_img_ids() == [1, 2, 4, 6, 8, 10, 11, 12]
    assert {one['image_id'] for one in kept.dataset['annotations']} <= set(kept.imgs)


def test_masks_are_checked_where_they_are_loaded_or_evaluated(root):
    path = root / 'annotations/instances_train.json'
    content = json.loads(path.read_text())
    content['annotations'][1]['segmentation'] = []
    path.write_text(json.dumps(content))
    check_data(config(root), ('train',))
    load = [dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
    assert 'has no segmentation' in error_of(config(root, pipeline=load))
    cfg = config(root)
    cfg.train_evaluator = [dict(type='CocoMetric', metric=['bbox', 'segm'])]
    assert 'has no segmentation' in error_of(cfg)


def test_what_mmdet_loads_is_what_was_checked(root, monkeypatch):
    check_data(config(root), ('train',))
    monkeypatch.setattr(CocoDataset, 'COCOAPI', CocoDataset.COCOAPI)
    monkeypatch.setattr(coco_metric, 'COCO', coco_metric.COCO)
    share_with_mmdet()
    monkeypatch.setattr(json, 'loads', None)
    dataset = DATASETS.build(dict(config(root).train_dataloader.dataset, pipeline=[]))
    assert len(dataset) == 12
    assert dataset.cat2label == {1: 0, 2: 1, 3: 2}


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


def test_test_set_without_truth_may_only_be_formatted(root):
    path = root / 'annotations/instances_train.json'
    content = json.loads(path.read_text())
    del content['annotations']
    path.write_text(json.dumps(content))
    dataset = config(root).train_dataloader.dataset
    cfg = Config(
        dict(
            test_dataloader=dict(dataset=dataset),
            test_evaluator=dict(type='CocoAPMetric', format_only=True),
        )
    )
    check_data(cfg, ('test',))
    cfg.test_evaluator.format_only = False
    assert 'no list annotations' in error_of(cfg, ('test',))

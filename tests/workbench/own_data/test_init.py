"""`gn-det init`: from the layouts people have to a config that a training takes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.optim import LinearLR

from gn_det.workbench.inputs.config import load_config
from gn_det.workbench.inputs.data import check_data
from gn_det.workbench.own_data.schedule import epochs_for, schedule_lines
from gn_det_cli.main import main
from tests.running import assert_success, call, user_error

SMALL = 'mask-rcnn_r18_fpn_gn-all_shapes'


def init(data: Path, out: Path, *more: object):
    return call('init', data, '--out', out, *more)


def content(shapes: Path, split: str = 'train') -> dict:
    path = shapes / 'annotations' / f'instances_{split}.json'
    return json.loads(path.read_text())


def put(path: Path, what: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(what))
    return path


def longest_line(path: Path) -> int:
    """A path is as long as it is."""
    lines = path.read_text().splitlines()
    return max(len(line) for line in lines if not line.startswith('data_root'))


@pytest.fixture
def roboflow(shapes, tmp_path):
    """Images beside their annotations, boxes only, and a root category of its own."""
    root = tmp_path / 'robo flow'
    for split, name in (('train', 'train'), ('val', 'valid')):
        shutil.copytree(shapes / split, root / name)
        what = content(shapes, split)
        for one in what['annotations']:
            one['segmentation'] = []
        what['categories'].insert(0, dict(id=0, name='things', supercategory='none'))
        put(root / name / '_annotations.coco.json', what)
    return root


@pytest.fixture
def label_studio(shapes, tmp_path):
    """One file, whose names lead into the folder of the images."""
    root = tmp_path / 'studio'
    shutil.copytree(shapes / 'train', root / 'images')
    what = content(shapes)
    for image in what['images']:
        image['file_name'] = f'images/{image["file_name"]}'
    put(root / 'result.json', what)
    return root


def test_cocos_layout(shapes, tmp_path):
    done = init(shapes, tmp_path / 'c.py', '--epochs', 24)
    assert_success(done)
    assert 'train: 12 images' in done.stdout
    assert 'all objects have masks' in done.stdout
    cfg = load_config(str(tmp_path / 'c.py'))
    assert cfg.train_dataloader.dataset.data_prefix.img == 'train/'
    assert cfg.val_dataloader.dataset.metainfo.classes == (
        'circle', 'square', 'triangle',
    )  # fmt: skip
    assert cfg.model.roi_head.mask_head.num_classes == 3
    assert cfg.test_evaluator.metric == ['bbox', 'segm']
    assert cfg.load_from == 'mask-rcnn_r50_fpn_gn-all_2x_coco'
    warm_up, drops = cfg.param_scheduler
    assert (drops.milestones, drops.end) == ([16, 22], 24)
    # 6 iterations an epoch: 14 of 144, though the base has 500.
    assert warm_up.end == pytest.approx(2.4)
    assert longest_line(tmp_path / 'c.py') <= 88


def test_roboflows_layout(roboflow, tmp_path):
    done = init(roboflow, tmp_path / 'c.py')
    assert_success(done)
    assert 'no object has a mask' in done.stdout
    assert 'left out, no object has them: things' in done.stdout
    cfg = load_config(str(tmp_path / 'c.py'))
    assert cfg.model.type == 'FusedFasterRCNN'
    assert cfg.val_evaluator.metric == 'bbox'
    assert cfg.val_dataloader.dataset.data_prefix.img == 'valid/'
    assert cfg.model.roi_head.bbox_head.num_classes == 3


def test_a_set_without_validation_is_split(label_studio, tmp_path):
    done = init(label_studio, tmp_path / 'own' / 'c.py')
    assert_success(done)
    assert 'no validation set: 1 images are held out' in done.stdout
    parts = [json.loads((tmp_path / 'own' / f'c_{s}.json').read_text())
             for s in ('train', 'val')]  # fmt: skip
    ids = [{image['id'] for image in part['images']} for part in parts]
    assert (len(ids[0]), len(ids[1]), ids[0] & ids[1]) == (11, 1, set())
    for part, own in zip(parts, ids, strict=True):
        assert {one['image_id'] for one in part['annotations']} <= own
    # The files are found from anywhere, and by everything that checks a config.
    cfg = load_config(str(tmp_path / 'own' / 'c.py'))
    assert check_data(cfg, ('train', 'val', 'test')) is not None
    assert not list((tmp_path / 'own').glob('*partial*'))
    assert 'pass --overwrite' in user_error(init(label_studio, tmp_path / 'own/c.py'))
    again = init(label_studio, tmp_path / 'own' / 'c.py', '--overwrite')
    assert f'replaced {tmp_path}/own/c.py' in again.stdout


def test_one_file_and_a_folder(shapes, tmp_path, monkeypatch):
    """What CVAT calls its parts, given piece by piece; paths from where one is."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shapes / 'train', 'photos')
    put(Path('export/instances_default.json'), content(shapes))
    main([
        'init', 'export/instances_default.json', '--images', 'photos',
        '--val', str(shapes / 'annotations/instances_train.json'), '--base', SMALL,
        '--load-from', 'coco.pth', '--epochs', '3',
    ])  # fmt: skip
    cfg = load_config('configs/instances_default.py')
    assert cfg.load_from == 'coco.pth'
    dataset = cfg.train_dataloader.dataset
    assert (dataset.data_root, dataset.ann_file, dataset.data_prefix.img) == (
        './', 'export/instances_default.json', 'photos/',
    )  # fmt: skip
    # The base's cosine, on the new length.
    assert cfg.param_scheduler[1].type == 'CosineAnnealingLR'
    assert (cfg.param_scheduler[1].T_max, cfg.train_cfg.max_epochs) == (3, 3)


@pytest.mark.parametrize(
    ('base', 'place'),
    [
        ('cascade-mask-rcnn_r50_fpn_gn-all_2x_coco', 'roi_head.bbox_head.2'),
        ('mask-rcnn_r50_fpn_gn-ws-all_2x_coco', 'roi_head.mask_head'),
        ('mask-rcnn_r50-scratch_fpn_gn-all_ms-3x_coco', 'roi_head.bbox_head'),
        ('mask-rcnn_r18_fpn_gn-all_coco-overfit', 'roi_head.mask_head'),
        ('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco', 'bbox_head'),
    ],
)
def test_other_bases(shapes, tmp_path, base, place):
    """Cascades, packages with a + in the path, iterations, wrappers, other projects."""
    assert_success(init(shapes, tmp_path / 'c.py', '--base', base, '--epochs', 6))
    cfg = load_config(str(tmp_path / 'c.py'))
    part = cfg.model
    for name in place.split('.'):
        part = part[int(name) if name.isdigit() else name]
    assert part.num_classes == 3
    assert cfg.train_cfg.type == 'EpochBasedTrainLoop'
    assert (cfg.train_cfg.max_epochs, cfg.train_cfg.get('max_iters')) == (6, None)
    assert cfg.train_dataloader.sampler.type == 'DefaultSampler'
    assert cfg.get('log_processor', {}).get('by_epoch', True)
    assert cfg.default_hooks.checkpoint.get('by_epoch', True)
    assert cfg.auto_scale_lr.enable


def test_many_classes_fit_into_the_lines(shapes, tmp_path):
    what = content(shapes)
    first = what['annotations'][0]
    what['categories'] = [dict(id=i, name=f"class '{i}'") for i in range(100)]
    what['annotations'] = [
        dict(first, id=i, category_id=i, image_id=what['images'][i % 12]['id'])
        for i in range(100)
    ]
    put(tmp_path / 'data' / 'train.json', what)
    shutil.copytree(shapes / 'train', tmp_path / 'data' / 'images')
    assert_success(init(tmp_path / 'data', tmp_path / 'c.py'))
    assert longest_line(tmp_path / 'c.py') <= 88
    cfg = load_config(str(tmp_path / 'c.py'))
    assert cfg.model.roi_head.bbox_head.num_classes == 100
    assert cfg.train_dataloader.dataset.metainfo.palette == 'random'


def test_length_by_size():
    assert [epochs_for(n) for n in (1, 240, 1000, 118_287)] == [100, 100, 24, 12]


@pytest.mark.parametrize(
    ('epochs', 'iterations', 'expected'),
    [(1, 1, 2), (1, 3, 2), (3, 16, 4), (12, 59_144, 500), (100, 7, 70)],
)
def test_the_warm_up_is_a_part_of_the_training(epochs, iterations, expected):
    """48 iterations have one of 4, and none has one that never ends."""
    base = load_config(SMALL)
    found: dict = {}
    exec('\n'.join(schedule_lines(base, epochs, iterations)), found)
    warm_up = LinearLR.build_iter_from_epoch(
        torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0),
        start_factor=0.001,
        end=found['param_scheduler'][0]['end'],
        epoch_length=iterations,
    )
    assert warm_up.end == expected
    for _ in range(expected - 1):
        warm_up.step()
    assert warm_up.optimizer.param_groups[0]['lr'] == pytest.approx(1)


def no_annotation(root, what):
    what['annotations'] = []


def no_category(root, what):
    what['categories'] = []


def no_images(root, what):
    shutil.rmtree(root / 'images')


def one_image_less(root, what):
    next((root / 'images').iterdir()).unlink()


def two_candidates(root, what):
    put(root / 'more.json', what)


def two_folders(root, what):
    shutil.copytree(root / 'images', root, dirs_exist_ok=True)


def one_image(root, what):
    keep = what['annotations'][0]['image_id']
    what['annotations'] = [
        one for one in what['annotations'] if one['image_id'] == keep
    ]


@pytest.mark.parametrize(
    ('spoil', 'more', 'said'),
    [
        (no_annotation, [], 'the set has no annotation'),
        (no_category, [], 'lists no categories'),
        (no_images, [], 'name their folder with --images'),
        (one_image_less, [], 'is not in|there is no such file'),
        (two_candidates, [], r'2 files may be the set to train on: .* as DATA, and'),
        (two_folders, [], 'name one with --images'),
        (one_image, [], 'has objects in 1 image; two are needed'),
        (bool, ['--epochs', 0], '--epochs: expected 1 or more, got 0'),
        (bool, ['--base', 'no-such'], 'config not found: no-such'),
        (bool, ['--val', 'no.json'], 'annotation file not found: no.json'),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(shapes, tmp_path, spoil, more, said):
    root, what = tmp_path / 'data', content(shapes)
    shutil.copytree(shapes / 'train', root / 'images')
    if spoil is not bool:
        spoil(root, what)
    put(root / 'labels.json', what)
    done = init(root, tmp_path / 'new' / 'c.py', *more)
    assert re.search(said, user_error(done))
    assert not (tmp_path / 'new' / 'c.py').exists()
    assert not list(tmp_path.glob('new/*'))


def test_nothing_of_cocos_in_a_folder(tmp_path):
    put(tmp_path / 'notes.json', dict(a=1))
    assert 'no COCO annotation file in' in user_error(init(tmp_path, tmp_path / 'c.py'))
    said = user_error(init(tmp_path / 'nowhere', tmp_path / 'c.py'))
    assert f'DATA not found: {tmp_path}/nowhere' in said


def test_masks_are_needed_by_a_base_for_masks(roboflow, tmp_path):
    done = init(roboflow, tmp_path / 'c.py', '--base', SMALL)
    assert 'trains masks, and no object has a mask; name a config' in user_error(done)

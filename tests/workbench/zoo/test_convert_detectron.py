"""Detectron's blobs land in the real R-50 model, each exactly once."""

from __future__ import annotations

import os
import pickle
import re

import numpy as np
import pytest
import torch

from gn_det.workbench.errors import UserError
from gn_det.workbench.loading.files import load_file
from gn_det.workbench.zoo.convert import convert_file, detectron
from gn_det.workbench.zoo.convert.layout import Detector, ResNet
from tests.workbench.zoo.convert_cases import (
    BACKBONE_LIST,
    CONFIGS,
    DETECTOR_LIST,
    build,
    detectron_blobs,
    detectron_r101_blobs,
    mmdet_key,
    on_meta,
    table,
    values,
    write_pickle,
)

R50 = 'detectron/mask-rcnn_r50_fpn_gn-all-detectron_2x_coco.py'
R101 = 'detectron/mask-rcnn_r101_fpn_gn-all-detectron_3x_coco.py'

# The row of the file for each row of the result, as detectron2's loader moves them.
ROWS = {
    'cls_score': [*range(1, 81), 0],
    'bbox_pred': list(range(4, 324)),
    'mask_fcn_logits': list(range(1, 81)),
}


@pytest.fixture(scope='module')
def converted(tmp_path_factory):
    """The report and the content of a whole detector, through files."""
    folder = tmp_path_factory.mktemp('detectron')
    content = {'blobs': detectron_blobs(), 'cfg': 'SOLVER:\n  MAX_ITER: 180000\n'}
    source = write_pickle(folder / 'model_final.pkl', content)
    report = convert_file(source, folder / 'out.pth', 'detectron')
    source.unlink()
    return report, load_file(folder / 'out.pth')


@pytest.fixture(scope='module')
def meta_blobs():
    shapes = table(DETECTOR_LIST, 'detectron_blob', 'shape')
    return {name: torch.empty(shape, device='meta') for name, shape in shapes.items()}


def test_every_blob_lands_where_it_belongs(converted):
    _, content = converted
    model = build(R50)
    model.load_state_dict(content['state_dict'], strict=True)
    state = model.state_dict()
    shapes = table(DETECTOR_LIST, 'detectron_blob', 'shape')
    assert len(shapes) == len(state) == 223
    assert {mmdet_key(blob) for blob in shapes} == set(state)
    for blob, shape in shapes.items():
        expected = values(blob, shape)
        if rows := ROWS.get(blob[:-2]):
            expected = expected[rows]
        np.testing.assert_array_equal(state[mmdet_key(blob)].numpy(), expected, blob)


def test_what_is_not_a_weight_is_counted(converted):
    report, _ = converted
    assert report.skipped == {
        "the optimiser's momentum": 2,
        'the ImageNet classifier': 2,
        'the learning rate': 1,
    }


def test_meta_and_report_say_what_the_weights_need(converted):
    report, content = converted
    meta = content['meta']
    assert len(meta['dataset_meta']['classes']) == 80
    ours = meta['gn_det']
    assert ours['preprocessing'] == dict(
        mean=[102.9801, 115.9465, 122.7717], std=[1.0, 1.0, 1.0], bgr_to_rgb=False
    )
    assert ours['legacy']['bbox_coder'] == 'DetectronBBoxCoder'
    assert ours['config'] == f'configs/{R50}'
    assert re.fullmatch('[0-9a-f]{64}', ours['source_sha256'])
    text = str(report)
    assert f'config: configs/{R50}' in text
    assert 'Mask R-CNN on ResNet-50 (GN) with 80 classes, 223 tensors' in text
    assert 'CC BY-SA 3.0' in text


def test_the_schedule_is_read_from_the_file(meta_blobs):
    content = {'blobs': meta_blobs, 'cfg': 'SOLVER:\n  MAX_ITER: 270000\n'}
    assert detectron.convert(content).config.endswith('detectron_3x_coco.py')


def test_r50_backbone():
    blobs = {
        name: values(name, shape)
        for name, shape in table(BACKBONE_LIST, 'blob', 'shape').items()
    }
    result = detectron.convert(blobs)
    assert result.model == ResNet((3, 4, 6, 3))
    assert len(result.state_dict) == 159
    assert result.skipped == {'the ImageNet classifier': 2}
    model = build(R50).backbone
    model.load_state_dict(result.state_dict, strict=True)
    for blob, value in blobs.items():
        if not blob.startswith('pred_'):
            name = mmdet_key(blob).removeprefix('backbone.')
            np.testing.assert_array_equal(model.state_dict()[name].numpy(), value, blob)


def test_r101_is_told_from_its_blobs():
    blobs = detectron_r101_blobs()
    result = detectron.convert({'blobs': blobs})
    assert result.model == Detector(ResNet((3, 4, 23, 3)), num_classes=80)
    assert (CONFIGS.parent / result.config).is_file()
    shapes = {name: tuple(v.shape) for name, v in result.state_dict.items()}
    assert len(shapes) == 376
    assert shapes == on_meta(R101)


def test_the_r101_backbone_alone():
    blobs = detectron_r101_blobs()
    backbone = {k: v for k, v in blobs.items() if k.startswith(('res', 'conv1_'))}
    result = detectron.convert(backbone)
    assert result.model == ResNet((3, 4, 23, 3))
    assert (CONFIGS.parent / result.config).is_file()


@pytest.mark.parametrize('blob', ['fpn_res4_5_sum_gn_s', 'cls_score_b', 'conv1_gn_b'])
def test_a_missing_blob_is_named(meta_blobs, blob):
    del (blobs := dict(meta_blobs))[blob]
    with pytest.raises(UserError, match=rf'1 missing \({blob}\)'):
        detectron.convert(blobs)


def test_a_blob_left_over_is_named(meta_blobs):
    blobs = {**meta_blobs, 'kps_score_w': torch.empty(1, device='meta')}
    with pytest.raises(UserError, match=r'1 left over \(kps_score_w\)'):
        detectron.convert(blobs)


def test_a_blob_of_another_shape_is_named(meta_blobs):
    blobs = {**meta_blobs, 'fc6_w': torch.empty(1024, 12543, device='meta')}
    with pytest.raises(UserError, match=r'1 of another shape \(fc6_w \(1024, 12543\)'):
        detectron.convert(blobs)


@pytest.mark.parametrize(
    ('blob', 'words'),
    [
        ('cls_score_w', 'left over'),
        ('res2_0_branch2a_w', 'no res2_0_branch2a_w'),
        ('res2_0_branch2b_w', 'no res2_0_branch2a_w'),
    ],
)
def test_a_blob_without_dimensions(meta_blobs, blob, words):
    blobs = {**meta_blobs, blob: torch.empty((), device='meta')}
    with pytest.raises(UserError, match=words):
        detectron.convert(blobs)


def test_rows_of_another_number_of_classes_do_not_fit(meta_blobs):
    blobs = {**meta_blobs, 'bbox_pred_w': torch.empty(320, 1024, device='meta')}
    with pytest.raises(UserError, match=r'bbox_pred_w \(320, 1024\)'):
        detectron.convert(blobs)


def test_a_name_twice_is_refused(meta_blobs):
    blobs = {**meta_blobs, 'module.conv1_w': meta_blobs['conv1_w']}
    with pytest.raises(UserError, match='names twice'):
        detectron.convert(blobs)


def test_another_number_of_classes(meta_blobs):
    blobs = dict(meta_blobs)
    for name, rows in (
        ('cls_score', 21),
        ('bbox_pred', 84),
        ('mask_fcn_logits', 21),
    ):
        for suffix in ('_w', '_b'):
            shape = (rows, *blobs[name + suffix].shape[1:])
            blobs[name + suffix] = torch.empty(shape, device='meta')
    result = detectron.convert(blobs)
    assert result.model.num_classes == 20
    assert result.state_dict['roi_head.bbox_head.fc_reg.weight'].shape == (80, 1024)


class Malicious:
    def __reduce__(self):
        return os.mkdir, ('pwned',)


def test_a_malicious_file_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / 'model_final.pkl'
    source.write_bytes(pickle.dumps({'blobs': {'conv1_w': Malicious()}}, protocol=2))
    with pytest.raises(UserError, match='mkdir'):
        convert_file(source, tmp_path / 'out.pth', 'detectron')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['model_final.pkl']

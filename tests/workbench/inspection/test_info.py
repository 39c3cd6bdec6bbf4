"""`gn-det info`: counts that can be checked by hand, and what a checkpoint says."""

from __future__ import annotations

import hashlib

import pytest
import torch

from gn_det.workbench.inputs.config import load_config
from gn_det.workbench.inspection.model_info import model_rows
from tests.running import CONFIG, assert_success, call, user_error
from tests.workbench.inference.weights import checkpoint  # noqa: F401


def rows(name, *words):
    done = call('info', name, *words)
    assert_success(done)
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines())


def test_a_config():
    """Parameters, R-50's multiply-adds and memory, as published and as measured."""
    cfg = load_config('mask-rcnn_r50_fpn_gn-all_2x_coco')
    found = dict(model_rows(cfg))
    # 23.5 M of R-50 without its classifier; 4.089 G at 224 x 224 are 87.5 here.
    assert found['parameters'].startswith('45.7 M (backbone 23.5, neck 3.3')
    assert '(backbone 87.6, ' in found['multiply-adds']
    assert 'of an image of 800 x 1344, padded, 1000 regions' in found['multiply-adds']
    assert found['kept for backward'].startswith('3.81 GiB (backbone 1.90, neck 0.51')
    assert found['norms'] == '69 FusedGroupNorm'
    assert '41 with ReLU' in found['gn_det.fuse']
    assert found['model'].startswith('FusedMaskRCNN, 80 classes: person, bicycle')
    assert found['scores'].startswith('box AP 40.2, mask AP 36.4 by mmdetection')
    assert found['starts from'].startswith('open-mmlab://detectron/resnet50_gn')


@pytest.mark.parametrize(
    ('name', 'said'),
    [
        ('mask-rcnn_r50-c4_gn-all_2x_coco', {'norms': '53 FusedGroupNorm'}),
        (
            'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco',
            {'norms': '53 BatchNorm2d, 8 GroupNorm'},
        ),
        (
            'mmdet::detr/detr_r50_8xb2-150e_coco',
            {'work, memory': 'not counted: its parts are called otherwise'},
        ),
    ],
)
def test_other_kinds_of_models(name, said):
    found = dict(model_rows(load_config(name)))
    for key, text in said.items():
        assert found[key].startswith(text)


def test_recomputation_keeps_less():
    kept = [
        dict(model_rows(load_config(str(CONFIG), more), (128, 128)))
        for more in ({}, {'model.recompute': True})
    ]
    plain, recomputed = (float(one['kept for backward'].split()[0]) for one in kept)
    assert 0 < recomputed < plain


def test_a_checkpoint(checkpoint):  # noqa: F811
    found = rows(checkpoint)
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert found['sha256'] == digest
    assert found['classes'] == '3: circle, square, triangle'
    assert found['weights'].startswith('124 tensors, 2.0 M numbers (backbone 0.7')


def test_a_checkpoint_of_a_run(tmp_path):
    text = (
        "model = dict(type='FusedMaskRCNN', backbone=dict(type='ResNet', depth=50, "
        "norm_cfg=dict(type='FusedGN')))\nload_from = 'coco.pth'\n"
    )
    meta = dict(epoch=3, iter=30, seed=7, cfg=text, gn_det=dict(version='1'))
    state = dict(w=torch.zeros(2))
    path = tmp_path / 'run.pth'
    torch.save(dict(state_dict=state, meta=meta, optimizer={}), path)
    found = rows(path)
    assert found['run'] == 'epoch 3, iter 30, seed 7'
    assert found['config'] == 'FusedMaskRCNN on ResNet-50, norms FusedGN'
    assert found['started'] == 'from       coco.pth'
    assert found['beside'].endswith('optimizer; gn-det publish leaves them out')
    torch.save(state, path)
    assert rows(path)['provenance'] == 'unknown: the weights stand alone'


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['no.pth'], 'checkpoint not found: '),
        (['no-such'], 'config not found: no-such'),
        ([CONFIG, '--size', 0, 5], '--size: expected pixels, got 0 5'),
        (
            [CONFIG, '--cfg-options', 'model.neck.type=FNP'],
            'model.neck.type: FNP is not in the registry',
        ),
    ],
)
def test_mistakes(words, said):
    assert said in user_error(call('info', *words))

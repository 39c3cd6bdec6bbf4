"""Configs whose model is converted and fused as it is built."""

from __future__ import annotations

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import DefaultScope
from torch import nn

import gn_det
from gn_det import FusedGroupNorm, convert_norm

FASTER = 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'


@pytest.fixture(autouse=True)
def scope():
    """As the tools set it; converting takes the config's own."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def mmdet_config(name: str = FASTER) -> Config:
    return get_config(f'mmdet::{name}')


def build(model: dict) -> nn.Module:
    with torch.device('meta'):
        return MODELS.build(copy.deepcopy(model))


def batch_norms(model: nn.Module) -> list[str]:
    kinds = nn.modules.batchnorm._BatchNorm
    return [name for name, m in model.named_modules() if isinstance(m, kinds)]


# Batch Norm in one norm_cfg, by default, without a setting, in structures written by
# hand, synchronised with a process group, of odd widths, in shared and repeated heads.
@pytest.mark.parametrize(
    'name',
    [
        FASTER,
        'cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py',
        'detectors/htc_r50-rfp_1x_coco.py',
        'double_heads/dh-faster-rcnn_r50_fpn_1x_coco.py',
        'hrnet/faster-rcnn_hrnetv2p-w32-1x_coco.py',
        'nas_fpn/retinanet_r50_fpn_crop640-50e_coco.py',
        'queryinst/queryinst_r50_fpn_1x_coco.py',
        'regnet/mask-rcnn_regnetx-3.2GF_fpn_1x_coco.py',
        'res2net/htc_res2net-101_fpn_20e_coco.py',
        'resnest/mask-rcnn_s50_fpn_syncbn-backbone+head_ms-1x_coco.py',
        'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
        'tridentnet/tridentnet_r50-caffe_1x_coco.py',
        'yolo/yolov3_d53_8xb8-ms-416-273e_coco.py',
        'yolof/yolof_r50-c5_8xb8-1x_coco.py',
    ],
)
def test_the_config_builds_what_the_model_becomes(name):
    cfg = mmdet_config(name)
    new, report = convert_norm(cfg)
    built = build(new.model)
    model, of_model = convert_norm(build(cfg.model))
    assert report.changed == of_model.changed
    assert not batch_norms(built)
    assert list(model.state_dict()) == list(built.state_dict())
    assert type(built).__name__ == cfg.model.type
    norms = {name for name, m in built.named_modules() if isinstance(m, FusedGroupNorm)}
    assert norms
    assert 'torchvision://' not in str(new.model)


def test_a_config_is_not_changed_but_copied():
    cfg = mmdet_config()
    before = copy.deepcopy(cfg.to_dict())
    new, report = convert_norm(cfg)
    assert cfg.to_dict() == before
    assert new.model.type == 'GroupNormModel'
    assert new.model.of == 'FasterRCNN'
    assert new.model.norm == dict(type='FusedGN')
    assert new.custom_imports['imports'] == ['gn_det']
    assert len(report.changed) == 53
    again, report = convert_norm(new)
    assert again.to_dict() == new.to_dict()
    assert len(report.changed) == 53


def test_a_dump_builds_the_same(tmp_path):
    new, _ = convert_norm(mmdet_config())
    new.dump(tmp_path / 'dumped.py')
    assert not batch_norms(build(Config.fromfile(tmp_path / 'dumped.py').model))


def test_parts_and_groups():
    cfg = mmdet_config('yolo/yolov3_d53_8xb8-ms-416-273e_coco.py')
    new, report = convert_norm(cfg, 'GN', num_groups=16, parts=('neck', 'head'))
    model = build(new.model)
    assert all(name.startswith('backbone.') for name in batch_norms(model))
    assert model.neck.detect1.conv1.gn.num_groups == 16
    assert new.model.backbone.init_cfg.checkpoint == 'open-mmlab://darknet53'
    assert not report.notes
    assert {kept.reason for kept in report.kept} == {'of a part not chosen'}


def test_what_was_for_batch_norm_is_left_out_and_named():
    cfg = mmdet_config()
    cfg.load_from = 'https://example.org/faster_rcnn_r50.pth'
    new, report = convert_norm(cfg)
    backbone = new.model.backbone
    assert (backbone.init_cfg, backbone.norm_eval) == (None, False)
    assert 'frozen_stages' not in backbone
    assert new.load_from is None
    said = '\n'.join(report.notes)
    assert 'model.backbone.init_cfg: torchvision://resnet50 does not fit' in said
    assert 'backbone is open-mmlab://detectron/resnet50_gn (as in configs/gn' in said
    assert 'model.backbone.frozen_stages=1 is left out' in said
    assert 'load_from: https://example.org/faster_rcnn_r50.pth does not fit' in said


@pytest.mark.parametrize(
    ('checkpoint', 'note'),
    [
        ('open-mmlab://detectron/resnet50_gn', None),
        ('start.pth', 'loads start.pth: if that has Batch Norm, convert it'),
    ],
)
def test_weights_that_may_fit_stay_with_their_frozen_stages(checkpoint, note):
    cfg = mmdet_config()
    cfg.model.backbone.init_cfg.checkpoint = checkpoint
    new, report = convert_norm(cfg)
    assert new.model.backbone.init_cfg.checkpoint == checkpoint
    assert new.model.backbone.frozen_stages == 1
    assert any(note in said for said in report.notes) if note else True
    assert not any('left out' in said for said in report.notes)


def test_a_student_and_its_teacher_are_both_converted():
    name = 'soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py'
    new, _ = convert_norm(mmdet_config(name))
    assert not batch_norms(build(new.model))
    assert new.model.detector.backbone.init_cfg is None
    assert 'frozen_stages' not in new.model.detector.backbone


def test_a_trained_teacher_is_not():
    cfg = mmdet_config('lad/lad_r50-paa-r101_fpn_2xb8_coco_1x.py')
    assert cfg.model.teacher_ckpt.startswith('http')
    new, report = convert_norm(cfg)
    assert {change.place.split('.')[0] for change in report.changed} == {'backbone'}
    assert new.model.teacher_backbone == cfg.model.teacher_backbone


def test_a_model_that_reads_numbers_as_it_is_built():
    name = 'efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco.py'
    _, report = convert_norm(mmdet_config(name))
    assert len(report.changed) == 122


def test_norms_of_other_kinds_stay_and_are_named():
    new, report = convert_norm(mmdet_config('ssd/ssd300_coco.py'))
    assert not report.changed
    assert new.model.type == 'SingleStageDetector'
    assert [kept.norm for kept in report.kept] == ['L2Norm']
    _, report = convert_norm(mmdet_config('detr/detr_r50_8xb2-150e_coco.py'))
    assert len(report.changed) == 53
    assert {kept.norm for kept in report.kept} == {'LayerNorm'}


def small(**settings) -> dict:
    return dict(type='ResNet', depth=18, base_channels=8, stem_channels=8, **settings)


def test_frozen_batch_norm_is_trained():
    model = build(
        dict(
            **{**small(frozen_stages=1), 'type': 'GroupNormModel'},
            of='ResNet',
            norm={},
            norm_cfg=dict(type='BN', requires_grad=False),
        )
    )
    assert not model.gn1.weight.requires_grad
    assert model.layer2[0].gn1.weight.requires_grad


@pytest.mark.parametrize('kind', ['BN', 'SyncBN', 'MMSyncBN', nn.BatchNorm2d])
def test_batch_norm_by_any_name(kind):
    new, report = convert_norm(small(norm_cfg=dict(type=kind)))
    assert len(report.changed) == 20
    assert not batch_norms(build(new))


@pytest.mark.parametrize('kind', ['IN', 'GN'])
def test_a_norm_cfg_of_another_norm_stays(kind):
    given = small(
        norm_cfg=dict(type=kind, **(dict(num_groups=4) if kind == 'GN' else {}))
    )
    new, report = convert_norm(given)
    assert new == given
    assert len(report.kept) == 20


def test_one_line_fuses_and_recomputes():
    new, _ = convert_norm(small())
    model = build({**new, 'fuse': True, 'recompute': True})
    report = gn_det.fuse(model)
    assert (len(report.relu), len(report.add_relu)) == (9, 8)
    assert type(model).__name__.startswith('Recomputing')


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(norm={}), "of: name the type of the model, such as of='FasterRCNN'"),
        (dict(of='ResNet', depth=18), 'give norm=dict.. to replace Batch Norm, fuse'),
        (dict(of='ResNet', depth=18, fuse=True), 'fuse: the model has no Group Norm'),
        (
            dict(of='FPN', in_channels=[8], out_channels=8, num_outs=1, norm={}),
            'norm: no Ba',
        ),
        (
            dict(of='ResNet', depth=18, norm=dict(type='LN')),
            "norm: expected 'FusedGN' or 'GN', got 'LN'",
        ),
    ],
)
def test_a_line_that_would_do_nothing_is_an_error(settings, words):
    with pytest.raises(ValueError, match=words):
        build(dict(type='GroupNormModel', **settings))


def test_weights_that_do_not_fit_are_named_as_the_model_is_built(monkeypatch):
    said = []
    monkeypatch.setattr(
        'gn_det.conversion.builder.print_log', lambda text, **_: said.append(text)
    )
    weights = dict(type='Pretrained', checkpoint='torchvision://resnet18')
    new = {**small(init_cfg=weights), 'type': 'GroupNormModel', 'of': 'ResNet'}
    build({**new, 'norm': {}})
    assert any('torchvision://resnet18 does not fit Group Norm' in s for s in said)


@pytest.mark.parametrize(
    ('imports', 'wanted'),
    [
        (dict(imports='mine'), ['mine', 'gn_det']),
        (dict(imports=['gn_det.models']), ['gn_det.models']),
    ],
)
def test_the_plugin_is_imported(imports, wanted):
    cfg = Config(dict(custom_imports=imports, model=small()))
    assert convert_norm(cfg)[0].custom_imports['imports'] == wanted


@pytest.mark.parametrize(
    ('cfg', 'words'),
    [
        (dict(model=None), 'model: expected the config of a model, got None'),
        (dict(model=[]), r'model: expected the config of a model, got \[\]'),
        (dict(model=dict(depth=18)), 'model: expected the config of a model, got'),
        (dict(custom_imports=['mine']), r"custom_imports: .*got \['mine'\]"),
        (dict(custom_imports=dict(imports=5)), 'custom_imports: .*got 5'),
        (dict(custom_imports=dict(imports=[5])), r'custom_imports: .*got \[5\]'),
    ],
)
def test_configs_that_cannot_be(cfg, words):
    with pytest.raises(TypeError, match=words):
        convert_norm({'model': small(), **cfg})


def test_a_config_without_a_model():
    with pytest.raises(ValueError, match='the config has no model'):
        convert_norm(Config(small()))

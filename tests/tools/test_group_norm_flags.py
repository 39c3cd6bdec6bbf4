"""`--norm gn` and `--fuse`: a config of mmdet trained, gone on with and evaluated."""

from __future__ import annotations

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config

from gn_det.workbench.report.run_log import read_test_scores
from tests.running import CONFIG, REPOSITORY, assert_success, call, user_error


@pytest.fixture(scope='module')
def fcos(tmp_path_factory) -> str:
    """A small FCOS of mmdet: Group Norm in its head, frozen Batch Norm behind it."""
    cfg = Config.fromfile(REPOSITORY / CONFIG)
    model = get_config('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py').model
    model.backbone.update(depth=18, base_channels=8, stem_channels=8)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=64)
    model.bbox_head.update(
        num_classes=3, in_channels=64, feat_channels=64, stacked_convs=1
    )
    cfg.model = model
    cfg.val_evaluator.metric = cfg.test_evaluator.metric = 'bbox'
    path = tmp_path_factory.mktemp('configs') / 'fcos.py'
    cfg.dump(path)
    return str(path)


def test_a_config_of_mmdet_is_converted_and_fused(fcos, small_options, tmp_path):
    flags = ('--norm', 'gn', '--fuse', '--work-dir', tmp_path)
    one = (*small_options, 'train_cfg.max_epochs=1', 'train_cfg.val_interval=9')
    done = call('train', fcos, *flags, *one)
    assert_success(done)
    said = done.stdout + done.stderr
    assert '20 Batch Norms became Group Norm (20 × backbone; ' in said
    assert '--norm gn: model.backbone.init_cfg: open-mmlab://detectron/resn' in said
    assert re.search(r'22 Group Norm layers: \d+ with ReLU', said)
    state = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)['state_dict']
    assert 'backbone.layer4.0.gn1.weight' in state
    assert not any('running' in name for name in state)

    done = call('train', fcos, *flags, '--resume', *small_options)
    assert_success(done)
    dumped = tmp_path / 'fcos.py'
    assert Config.fromfile(dumped).model.type == 'GroupNormModel'

    # The dumped config says it all; the first one needs the flag again.
    last = tmp_path / 'epoch_2.pth'
    to = ('--work-dir', tmp_path / 'test')
    assert_success(call('test', dumped, last, *to))
    alone = read_test_scores(tmp_path / 'test')
    assert_success(call('test', fcos, last, '--norm', 'gn', *to, *small_options))
    again = read_test_scores(tmp_path / 'test')
    assert alone['coco/bbox_mAP'] == pytest.approx(again['coco/bbox_mAP'])
    said = user_error(call('test', fcos, last, *to, *small_options))
    assert 'does not match the model' in said


@pytest.mark.parametrize(
    ('config', 'flags', 'words'),
    [
        ('mmdet::ssd/ssd300_coco.py', ('--norm', 'gn'), 'has no Batch Norm that could'),
        ('mmdet::ssd/ssd300_coco.py', ('--fuse',), 'has no Group Norm; --norm gn puts'),
        ('mmdet::ssd/ssd300_coco.py', ('--norm', 'bn'), "invalid choice: 'bn'"),
        (
            'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
            ('--fuse', '--cfg-options', 'model.backbone.dept=18'),
            'model.backbone.dept: ResNet has no such setting (did you mean depth',
        ),
    ],
)
def test_flags_that_could_do_nothing(config, flags, words, tmp_path):
    said = user_error(call('train', config, '--work-dir', tmp_path / 'run', *flags))
    assert words in said
    assert not (tmp_path / 'run').exists()

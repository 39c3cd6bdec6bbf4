"""Starting from a detector: by name, whose heads of other sizes start anew."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from torch import nn

from gn_det.workbench.errors import UserError
from gn_det.workbench.runtime import starting
from gn_det.workbench.runtime.saving import keep_best
from gn_det.workbench.zoo import download as downloads
from tests.running import CONFIG, call, user_error
from tests.workbench.zoo.convert_cases import detectron_blobs, write_pickle


class Detector(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 8, 3)
        self.backbone.init_cfg = dict(type='Pretrained', checkpoint='x')
        self.head = nn.Linear(8, classes)


@pytest.mark.parametrize('wrapped', [True, False], ids=['checkpoint', 'weights'])
def test_what_fits_is_taken_and_the_rest_is_named(tmp_path, caplog, wrapped):
    coco, mine = Detector(80), Detector(3)
    state = {**coco.state_dict(), 'mask.conv.weight': torch.zeros(1)}
    del state['backbone.bias']
    before = {name: value.clone() for name, value in mine.state_dict().items()}
    checkpoint = dict(state_dict=state) if wrapped else state
    runner = SimpleNamespace(
        model=mine, cfg=Config(dict(load_from='coco.pth')), logger=logging.getLogger()
    )
    with caplog.at_level(logging.INFO):
        starting.StartHook().after_load_checkpoint(runner, checkpoint)
    assert caplog.messages == [
        'Starting from coco.pth: 1 of 4 tensors; 2 of another size are dropped and '
        'start anew (head.weight (80, 8) for (3, 8), head.bias (80,) for (3,)); 1 it '
        'has not start anew (backbone.bias); 1 of the file are not used (mask.conv)'
    ]
    torch.save(checkpoint, tmp_path / 'filled.pth')
    load_checkpoint(mine, str(tmp_path / 'filled.pth'), strict=True)
    assert torch.equal(mine.backbone.weight, coco.backbone.weight)
    assert torch.equal(mine.head.weight, before['head.weight'])


@pytest.mark.parametrize(('name', 'fetched'), [('backbone.bias', True), ('x', False)])
def test_a_backbone_that_is_filled_is_not_fetched_first(name, fetched):
    model = Detector(3)
    state = Detector(80).state_dict()
    state.pop(name, None)
    starting.skip_pretrained_backbone(model, state)
    assert (model.backbone.init_cfg is not None) is fetched


@pytest.mark.parametrize(
    ('start', 'resume', 'found'),
    [
        ('NAME', False, 'got.pth'),
        ('NAME', True, 'NAME'),
        ('no/such.pth', False, 'no/such.pth'),
        ('https://a.b/c.pth', False, 'https://a.b/c.pth'),
        (None, False, None),
    ],
)
def test_a_name_stands_for_weights_of_the_zoo(monkeypatch, start, resume, found):
    monkeypatch.setattr(starting, 'download_checkpoint', lambda name: 'got.pth')
    cfg = Config(dict(load_from=start, resume=resume))
    starting.fetch_start(cfg)
    assert cfg.load_from == found


def test_weights_of_another_project_are_converted_once(tmp_path, monkeypatch):
    name = 'mask-rcnn_r50_fpn_gn-all-detectron_2x_coco'
    path = write_pickle(tmp_path / 'weights.pkl', dict(blobs=detectron_blobs()))
    monkeypatch.setattr(downloads, 'download', lambda name: path)
    made = downloads.download_checkpoint(name)
    written = made.stat().st_mtime_ns
    assert 'roi_head.mask_head.conv_logits.bias' in torch.load(made)['state_dict']
    assert downloads.download_checkpoint(name) == made
    assert made.stat().st_mtime_ns == written


def test_a_wrong_name_is_one_line(shapes, tmp_path):
    done = call(
        'train', CONFIG, '--load-from', 'mask-rcnn_r50_fpn_gn-all_2x_coc',
        '--work-dir', tmp_path / 'run', '--cfg-options', f'data_root={shapes}',
    )  # fmt: skip
    assert 'did you mean mask-rcnn_r50_fpn_gn-all_2x_coco' in user_error(done)
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    ('hook', 'kept'),
    [
        (dict(type='CheckpointHook', interval=1), ('auto', 2)),
        (dict(type='CheckpointHook', max_keep_ckpts=-1, save_best=None), (None, -1)),
        (dict(type='Own'), (None, None)),
    ],
)
def test_the_best_and_the_last_two_checkpoints_stay(hook, kept):
    cfg = Config(dict(default_hooks=dict(checkpoint=hook)))
    keep_best(cfg)
    found = cfg.default_hooks.checkpoint
    assert (found.get('save_best'), found.get('max_keep_ckpts')) == kept


def test_models_without_weights_say_so():
    with pytest.raises(UserError, match='has no published weights'):
        downloads.download_checkpoint('faster-rcnn_r50_fpn_gn-all_2x_coco')

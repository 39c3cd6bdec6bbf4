"""What lies around a conversion: the layout, the files, the meta, the way out."""

from __future__ import annotations

import json
import os

import pytest
import torch
import torchvision
from safetensors.torch import load_file as load_tensors

from gn_det.workbench.errors import UserError
from gn_det.workbench.loading.files import load_file
from gn_det.workbench.zoo.convert import convert_file, run
from gn_det.workbench.zoo.convert.conversion import Conversion
from gn_det.workbench.zoo.convert.layout import Detector, ResNet
from gn_det.workbench.zoo.convert.writing import write_checkpoint
from tests.workbench.zoo.convert_cases import CONFIGS, on_meta


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """torchvision's ResNet-18, the smallest file a converter takes."""
    path = tmp_path_factory.mktemp('source') / 'resnet18.pth'
    torch.save(torchvision.models.resnet18().state_dict(), path)
    return path


@pytest.mark.parametrize(
    ('config', 'model'),
    [
        ('gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py', Detector(ResNet((3, 4, 6, 3)), 80)),
        (
            'gn/faster-rcnn_r101_fpn_gn-all_2x_coco.py',
            Detector(ResNet((3, 4, 23, 3)), 80, with_mask=False),
        ),
        (
            'gn+ws/mask-rcnn_x50-32x4d_fpn_gn-ws-all_2x_coco.py',
            Detector(ResNet((3, 4, 6, 3), width=128, groups=32), 80),
        ),
    ],
)
def test_the_layout_is_that_of_the_model(config, model):
    assert model.shapes() == on_meta(config)


def test_safetensors_carry_the_meta(source, tmp_path):
    target = tmp_path / 'out.safetensors'
    convert_file(source, target, 'timm')
    assert load_tensors(target).keys() == load_file(target)['state_dict'].keys()
    meta = load_file(target)['meta']['gn_det']
    assert meta['converted_from'] == 'timm'
    assert meta['preprocessing']['bgr_to_rgb'] is True
    json.dumps(meta)


def test_a_backbone_is_named_to_the_config(tmp_path):
    state = torchvision.models.resnet50(
        norm_layer=lambda c: torch.nn.GroupNorm(32, c)
    ).state_dict()
    torch.save(state, tmp_path / 'r50.pth')
    target = tmp_path / 'out.pth'
    report = convert_file(tmp_path / 'r50.pth', target, 'timm')
    assert (CONFIGS.parent / report.config).is_file()
    assert report.options == {'model.backbone.init_cfg.checkpoint': str(target)}
    assert f"--cfg-options model.backbone.init_cfg.checkpoint='{target}'" in str(report)
    assert 'frozen_stages' not in str(report)


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('out.pkl', 'expected a name ending in'),
        ('resnet18.pth', 'is the source itself'),
        ('link.pth', 'is the source itself'),
        ('folder.pth', 'is a folder'),
    ],
)
def test_where_a_file_cannot_go(source, name, words):
    before = source.read_bytes()
    link, folder = source.parent / 'link.pth', source.parent / 'folder.pth'
    if not link.exists():
        os.link(source, link)
        folder.mkdir()
    with pytest.raises(UserError, match=words):
        convert_file(source, source.parent / name, 'torchvision')
    assert source.read_bytes() == before


def test_detectron2_reads_no_safetensors(source, tmp_path):
    with pytest.raises(UserError, match='no safetensors'):
        convert_file(source, tmp_path / 'x.safetensors', 'mmdet', 'detectron2')


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    target = tmp_path / 'out.pth'
    write_checkpoint(target, {'w': torch.ones(3)}, {})
    before = target.read_bytes()

    def full(fd):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(UserError, match=r'out\.pth: No space left'):
        write_checkpoint(target, {'w': torch.zeros(3)}, {})
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize('content', [b'', b'GIF89a', b'<html></html>'])
@pytest.mark.parametrize('name', ['wrong.pkl', 'wrong.pth', 'wrong.safetensors'])
def test_a_file_of_something_else(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f'{name} is not a checkpoint'):
        convert_file(tmp_path / name, tmp_path / 'out.pth', 'detectron')
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_no_file(tmp_path):
    with pytest.raises(UserError, match=r'not found: .*no\.pkl'):
        convert_file(tmp_path / 'no.pkl', tmp_path / 'out.pth', 'detectron')


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (('detectron2',), 'resnet18.pth holds no detector.*looks like --from torchv'),
        (('mmdet1',), 'it looks like --from torchvision'),
        (('timm', 'mmdet', 'gn', 48), 'bn1.weight has 64 channels, which 48 groups'),
        (('timm', 'mmdet', 'gn', 0), '--num-groups: expected a positive number'),
        (('timm', 'detectron2'), 'no detector that --to detectron2 knows'),
    ],
)
def test_what_does_not_fit(source, tmp_path, arguments, words):
    names = ('from_format', 'to_format', 'norm', 'num_groups')
    chosen = dict(zip(names, arguments, strict=False))
    with pytest.raises(UserError, match=words):
        convert_file(source, tmp_path / 'out.pth', **chosen)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ({'state_dict': {'w': torch.ones(1)}, 'meta': [1]}, 'holds a list as its meta'),
        ({'w': torch.ones(1, device='meta')}, 'holds no values for w'),
        ({'w': torch.eye(2).to_sparse()}, 'holds a sparse tensor under w'),
        ({'w': torch.zeros(1).expand(10**13)}, 'holds a tensor of 37253 GiB under w'),
    ],
)
@pytest.mark.filterwarnings('ignore:Validating sparse')
def test_what_is_no_checkpoint_of_weights(tmp_path, content, words):
    torch.save(content, tmp_path / 'run.pth')
    with pytest.raises(UserError, match=rf'run\.pth {words}'):
        convert_file(tmp_path / 'run.pth', tmp_path / 'out.pth', 'mmdet')
    assert os.listdir(tmp_path) == ['run.pth']


def test_a_link_leads_to_the_file_that_is_written(tmp_path):
    for name in ('here', 'there'):
        (tmp_path / name).mkdir()
    torch.save({'w': torch.ones(3)}, tmp_path / 'run.pth')
    link, real = tmp_path / 'here' / 'out.pth', tmp_path / 'there' / 'out.pth'
    link.symlink_to(real)
    for _ in range(2):
        convert_file(tmp_path / 'run.pth', link, 'mmdet')
        assert link.is_symlink()
        assert load_file(real)['state_dict'].keys() == {'w'}
    assert os.listdir(tmp_path / 'here') == ['out.pth']


@pytest.mark.parametrize('name', ['a,b.pth', 'a b.pth', "a'b.pth", '[a].pth'])
def test_a_name_that_an_option_cannot_spell_is_not_printed_as_one(tmp_path, name):
    result = Conversion({}, ResNet((3, 4, 6, 3)), config='configs/gn/x.py')
    run._add_backbone_advice(result, tmp_path / name)
    assert not result.options
    assert 'cannot spell the name' in result.notes[0]


def test_meta_that_safetensors_cannot_carry(tmp_path):
    content = {'state_dict': {'w': torch.ones(3)}, 'meta': {'seen': torch.ones(1)}}
    torch.save(content, tmp_path / 'run.pth')
    with pytest.raises(UserError, match=r'end the name in \.pth'):
        convert_file(tmp_path / 'run.pth', tmp_path / 'out.safetensors', 'mmdet')


def test_numbers_that_safetensors_has_no_name_for(tmp_path):
    state = {'w': torch.ones(2, dtype=torch.complex128)}
    text = r'under w, which safetensors cannot carry; end the name in \.pth'
    with pytest.raises(UserError, match=text):
        write_checkpoint(tmp_path / 'a.safetensors', state, {})
    assert os.listdir(tmp_path) == []

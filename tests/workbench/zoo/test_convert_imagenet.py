"""Backbones of torchvision and timm, and Batch Norm as a start for Group Norm."""

from __future__ import annotations

import functools

import pytest
import torch
import torchvision
from mmdet.models.backbones import ResNet, ResNeXt
from torch import nn

from gn_det.workbench.errors import UserError
from gn_det.workbench.loading.files import load_file
from gn_det.workbench.zoo.convert import convert_file, imagenet
from gn_det.workbench.zoo.convert.norm import to_group_norm

GN = dict(type='FusedGN', num_groups=32)
BN = dict(type='BN')
group_norm = functools.partial(nn.GroupNorm, 32)


def randomised(model: nn.Module) -> nn.Module:
    """Every value its own, running statistics too."""
    generator = torch.Generator().manual_seed(0)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(0.5 + torch.rand(value.shape, generator=generator) / 10)
    return model.eval()


def maps(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """torchvision's four maps."""
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    found = []
    for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
        found.append(x := layer(x))
    return found


@pytest.mark.parametrize(
    ('name', 'norm', 'ours'),
    [
        ('resnet50', group_norm, lambda: ResNet(50, norm_cfg=GN)),
        ('resnet50', None, lambda: ResNet(50, norm_cfg=BN)),
        ('resnet18', group_norm, lambda: ResNet(18, norm_cfg=GN)),
        ('resnet18', None, lambda: ResNet(18, norm_cfg=BN)),
        (
            'resnext50_32x4d',
            None,
            lambda: ResNeXt(depth=50, groups=32, base_width=4, norm_cfg=BN),
        ),
    ],
)
def test_the_backbone_computes_the_same_maps(name, norm, ours):
    theirs = randomised(torchvision.models.get_model(name, norm_layer=norm))
    result = imagenet.convert(theirs.state_dict())
    mine = ours()
    mine.eval()
    missing, unexpected = mine.load_state_dict(result.state_dict, strict=False)
    assert all(key.endswith('num_batches_tracked') for key in missing)
    assert not unexpected
    assert result.skipped['the ImageNet classifier'] == 2
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for one, two in zip(mine(x), maps(theirs, x), strict=True):
            torch.testing.assert_close(one, two)


@pytest.mark.parametrize('wrapper', ['state_dict', 'model', 'state_dict_ema'])
def test_timm_wraps_its_weights(wrapper):
    state = torchvision.models.resnet18(norm_layer=group_norm).state_dict()
    result = imagenet.convert({wrapper: state, 'epoch': 3})
    assert result.model.depth == 18
    assert 'gn1.weight' in result.state_dict


def test_another_stem_is_refused():
    state = torchvision.models.resnet18().state_dict()
    state['conv1.0.weight'] = state.pop('conv1.weight')
    with pytest.raises(UserError, match=r'missing \(conv1.weight\).*conv1.0.weight'):
        imagenet.convert(state)


def test_another_model_is_refused():
    state = torchvision.models.squeezenet1_0().state_dict()
    with pytest.raises(UserError, match='no ResNet'):
        imagenet.convert(state)


def test_batch_norm_becomes_a_start_for_group_norm(tmp_path):
    theirs = randomised(torchvision.models.resnet50())
    torch.save(theirs.state_dict(), tmp_path / 'resnet50.pth')
    report = convert_file(
        tmp_path / 'resnet50.pth', tmp_path / 'gn.pth', 'torchvision', norm='gn'
    )
    assert report.skipped['running statistics of Batch Norm'] == 2 * 53
    assert any('has to be trained' in note for note in report.notes)
    assert report.options['model.backbone.frozen_stages'] == -1
    assert "model.backbone.frozen_stages='-1'" in str(report)
    state = load_file(tmp_path / 'gn.pth')['state_dict']
    model = ResNet(50, norm_cfg=GN)
    model.load_state_dict(state, strict=True)
    given = theirs.state_dict()
    assert torch.equal(model.gn1.weight, given['bn1.weight'])
    assert torch.equal(model.layer3[5].gn2.bias, given['layer3.5.bn2.bias'])
    shortcut = model.layer2[0].downsample[1]
    assert torch.equal(shortcut.weight, given['layer2.0.downsample.1.weight'])


def test_the_zoo_wants_group_norm(tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / 'r18.pth')
    report = convert_file(tmp_path / 'r18.pth', tmp_path / 'bn.pth', 'torchvision')
    assert report.config is None
    assert any('--norm gn' in note for note in report.notes)


def norm(name: str, channels: int = 64) -> dict[str, torch.Tensor]:
    names = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
    return {f'{name}.{n}': torch.rand(channels) for n in names}


def test_names_of_norms():
    state = {
        **norm('backbone.layer1.0.bn2'),
        **norm('neck.lateral_convs.0.bn'),
        **norm('downsample.1'),
        'head.bn_conv.weight': torch.rand(3),
    }
    renamed, skipped = to_group_norm(state)
    assert list(renamed) == [
        'backbone.layer1.0.gn2.weight',
        'backbone.layer1.0.gn2.bias',
        'neck.lateral_convs.0.gn.weight',
        'neck.lateral_convs.0.gn.bias',
        'downsample.1.weight',
        'downsample.1.bias',
        'head.bn_conv.weight',
    ]
    assert skipped == {'running statistics of Batch Norm': 9}


@pytest.mark.parametrize(
    ('state', 'words'),
    [
        ({'conv.weight': torch.rand(3)}, 'no Batch Norm'),
        (norm('bn', 48), 'bn.weight has 48 channels, which 32 groups'),
        ({**norm('bn1'), 'gn1.weight': torch.rand(64)}, 'would be called gn1.weight'),
    ],
)
def test_what_cannot_become_group_norm(state, words):
    with pytest.raises(UserError, match=words):
        to_group_norm(state)

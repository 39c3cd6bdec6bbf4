"""`gn-det convert`, with a right and a wrong file."""

from __future__ import annotations

import torch
import torchvision

from tests.running import assert_success, call, user_error


def test_batch_norm_to_group_norm(tmp_path):
    source, target = tmp_path / 'resnet18.pth', tmp_path / 'out.safetensors'
    torch.save(torchvision.models.resnet18().state_dict(), source)
    done = call('convert', source, target, '--from', 'torchvision', '--norm', 'gn')
    assert_success(done)
    assert target.is_file()
    lines = done.stdout.splitlines()
    assert f'wrote {target}: ResNet-18 (GN), 60 tensors' in lines
    assert 'skipped 40 (running statistics of Batch Norm)' in lines
    assert 'skipped 2 (the ImageNet classifier)' in lines


def test_an_image(tmp_path):
    source, target = tmp_path / 'picture.pth', tmp_path / 'out.pth'
    source.write_bytes(b'\x89PNG\r\n\x1a\n' + bytes(99))
    done = call('convert', source, target, '--from', 'detectron2')
    assert f'{source} is not a checkpoint' in user_error(done)
    assert not target.exists()

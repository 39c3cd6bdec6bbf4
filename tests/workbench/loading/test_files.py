"""Weight files of every kind: what they hold, and one line for what is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import sys
import types
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.runner import CheckpointLoader
from safetensors.torch import save, save_file

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.checkpoints import load_state_dict
from gn_det.workbench.loading.files import load_file
from gn_det.workbench.loading.integrity import is_whole, sealed
from gn_det.workbench.zoo.convert.run import convert_file
from gn_det.workbench.zoo.publish import publish
from tests.attacks.flips import KINDS, flip_bits
from tests.workbench.loading.evil import Evil


def refused(path, **options) -> str:
    """The one line that a file is refused with."""
    with pytest.raises(UserError) as error:
        load_file(path, **options)
    assert '\n' not in str(error.value)
    return str(error.value)


class TestPickle:
    @pytest.mark.parametrize('trust', [True, False])
    def test_arrays(self, tmp_path, trust):
        path = tmp_path / 'model.pkl'
        content = {'blobs': {'w': np.arange(3)}, 'cfg': 'MODEL: {}'}
        path.write_bytes(pickle.dumps(content))
        loaded = load_file(path, trust=trust)
        assert loaded['blobs']['w'].tolist() == [0, 1, 2]
        assert loaded['cfg'] == 'MODEL: {}'

    def test_code_is_named_and_runs_with_full_rights_only(self, tmp_path):
        path = tmp_path / 'own.pkl'
        path.write_bytes(pickle.dumps({'a': Evil(tmp_path / 'made')}))
        assert 'own.pkl asks for posix.mkdir, and nothing but' in refused(path)
        assert not (tmp_path / 'made').exists()
        load_file(path, trust=True)
        assert (tmp_path / 'made').is_dir()

    def test_named_like_a_checkpoint(self, tmp_path):
        """A plain pickle gets the rights of a plain pickle."""
        path = tmp_path / 'a.pth'
        path.write_bytes(pickle.dumps({'w': torch.nn.Linear(1, 1)}))
        assert 'asks for torch.nn.modules.linear.Linear' in refused(path)

    @pytest.mark.parametrize('trust', [True, False])
    @pytest.mark.parametrize(
        ('content', 'text'),
        [
            (b'', 'was not a pickle, or it is cut short'),
            (b'\x80\x04junk', 'was not a pickle, or it is cut short'),
            (pickle.dumps({'a': 'b'})[:-3], 'was not a pickle, or it is cut short'),
            (pickle.dumps([1]), 'holds a list'),
        ],
    )
    def test_what_is_none(self, tmp_path, content, text, trust):
        (tmp_path / 'model.pkl').write_bytes(content)
        assert text in refused(tmp_path / 'model.pkl', trust=trust)


class TestTorch:
    @pytest.fixture(params=[True, False], ids=['zip', 'before 1.6'])
    def save(self, request, tmp_path):
        def write(content):
            path = tmp_path / 'a.pth'
            torch.save(content, path, _use_new_zipfile_serialization=request.param)
            return path

        return write

    def test_weights(self, save):
        weights = torch.randn(3, 4)
        content = {'state_dict': OrderedDict(w=weights), 'meta': {'a': np.arange(2)}}
        loaded = load_file(save(content))
        assert torch.equal(loaded['state_dict']['w'], weights)
        assert loaded['meta']['a'].tolist() == [0, 1]

    def test_code_does_not_run_and_is_named(self, save, tmp_path):
        path = save({'state_dict': {'w': Evil(tmp_path / 'pwned')}})
        line = refused(path)
        assert 'asks for posix.mkdir, and nothing but' in line
        assert 'weights_only' not in line
        assert not (tmp_path / 'pwned').exists()
        load_file(path, trust=True)
        assert (tmp_path / 'pwned').is_dir()

    def test_arrays_of_something_else_are_named(self, save):
        path = save({'meta': {'classes': np.array(['person'])}})
        assert 'asks for an array of <U6, and' in refused(path)

    def test_cut_short(self, save):
        path = save({'state_dict': {'w': torch.randn(1000)}})
        path.write_bytes(path.read_bytes()[:-500])
        assert 'cut short' in refused(path)
        assert not is_whole(path)

    def test_class_of_a_module_that_is_gone_is_named(self, save, monkeypatch):
        module = types.ModuleType('old_project')
        module.Thing = type('Thing', (), {'__module__': 'old_project'})
        monkeypatch.setitem(sys.modules, 'old_project', module)
        path = save({'state_dict': {}, 'meta': module.Thing()})
        monkeypatch.delitem(sys.modules, 'old_project')
        line = refused(path, trust=True)
        assert 'not installed here' in line
        assert "'old_project'" in line

    @pytest.mark.skipif(torch.cuda.is_available(), reason='needs no CUDA device')
    def test_device_that_is_not_there(self, save):
        path = save({'state_dict': {'w': torch.ones(1)}})
        line = refused(path, map_location='cuda')
        assert 'cannot be loaded: ' in line
        assert 'CUDA' in line


class TestSafetensors:
    @pytest.mark.parametrize('device', ['cpu', 'meta'])
    def test_weights_and_meta(self, tmp_path, device):
        path = tmp_path / 'a.safetensors'
        weights = {'a.w': torch.randn(3, 4), 'n': torch.arange(3)}
        save_file(weights, path, {'meta': '{"classes": ["a"]}'})
        loaded = load_file(path, map_location=torch.device(device))
        assert loaded['meta'] == {'classes': ['a']}
        assert loaded['state_dict'].keys() == weights.keys()
        for name, value in loaded['state_dict'].items():
            assert value.device.type == device
            assert device == 'meta' or torch.equal(value, weights[name])

    def test_of_others_has_no_meta(self, tmp_path):
        save_file({'w': torch.ones(1)}, tmp_path / 'a.safetensors')
        assert load_file(tmp_path / 'a.safetensors')['meta'] == {}

    def test_meta_nested_too_deeply(self, tmp_path):
        path = tmp_path / 'a.safetensors'
        save_file({'w': torch.ones(1)}, path, {'meta': '[' * 100_000})
        assert 'no whole safetensors file' in refused(path)

    def test_cut_short(self, tmp_path):
        path = tmp_path / 'a.safetensors'
        save_file({'w': torch.ones(100)}, path)
        path.write_bytes(path.read_bytes()[:-9])
        assert 'no whole safetensors file' in refused(path)

    def test_seal_is_that_of_the_file_with_zeros_in_its_place(self, tmp_path):
        content = sealed(save({'w': torch.ones(3)}), {'meta': '{}'})
        header = content[8 : 8 + int.from_bytes(content[:8], 'little')]
        digest = json.loads(header)['__metadata__']['sha256']
        blank = content.replace(digest.encode(), b'0' * 64)
        assert hashlib.sha256(blank).hexdigest() == digest
        (tmp_path / 'a.safetensors').write_bytes(content)
        loaded = load_file(tmp_path / 'a.safetensors')['state_dict']
        assert torch.equal(loaded['w'], torch.ones(3))

    def test_changed_after_it_was_sealed(self, tmp_path):
        content = sealed(save({'w': torch.ones(3)}), {'meta': '{"a": 1}'})
        path = tmp_path / 'a.safetensors'
        path.write_bytes(content.replace(b'1}', b'2}'))
        assert 'was changed after it was published' in refused(path)


class TestDigests:
    @pytest.fixture
    def written(self, tmp_path):
        path = tmp_path / 'model.pth'
        torch.save({'w': torch.ones(3)}, path)
        return path, hashlib.sha256(path.read_bytes()).hexdigest()

    def test_in_the_name(self, written, tmp_path):
        path, digest = written
        right = path.rename(tmp_path / f'model-{digest[:8]}.pth')
        load_file(right)
        wrong = right.rename(tmp_path / 'model-00112233.pth')
        assert f'its content has {digest[:8]}; get it again, or' in refused(wrong)
        load_file(wrong, digest_known=True)
        load_file(wrong.rename(tmp_path / 'model-20261125.pth'))

    @pytest.mark.parametrize('spelling', ['{}  model.pth\n', '{}', '{} *model.pth'])
    def test_beside_it(self, written, tmp_path, spelling):
        path, digest = written
        beside = tmp_path / 'model.pth.sha256'
        beside.write_text(spelling.format(digest.upper()))
        load_file(path)
        beside.write_text(spelling.format('0' * 64))
        assert 'model.pth.sha256 gives the sha256 000' in refused(path)

    def test_beside_it_is_none(self, written, tmp_path):
        (tmp_path / 'model.pth.sha256').write_bytes(b'\xffno')
        assert 'model.pth.sha256 holds no sha256' in refused(written[0])


@pytest.mark.parametrize('kind', [kind for kind in KINDS if KINDS[kind].checked])
def test_no_changed_bit_passes(kind, tmp_path):
    """Short form of `python -m tests.attacks.flips`."""
    outcome = flip_bits(kind, tmp_path, count=60, seed=1)
    assert outcome['wrong'] == 0
    assert outcome['refused'] > 30


WAYS = {
    'mmengine': lambda path, _: CheckpointLoader.load_checkpoint(path),
    'a check': lambda path, _: load_state_dict(path),
    'publish': lambda path, folder: publish(path, folder / 'out'),
    'convert': lambda path, folder: convert_file(path, folder / 'o.pth', 'mmdet2'),
}


@pytest.mark.parametrize('way', WAYS)
def test_every_way_refuses_a_damaged_file(way, tmp_path):
    path = tmp_path / 'a.pth'
    torch.save({'state_dict': {'w': torch.full((1000,), 1.5)}}, path)
    content = bytearray(path.read_bytes())
    content[content.find(torch.full((4,), 1.5).numpy().tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r'a\.pth is damaged or cut short \(the check'):
        WAYS[way](str(path), tmp_path)
    assert os.listdir(tmp_path) == ['a.pth']


def test_tensor_that_passes_for_a_folder(tmp_path):
    """torch reads nothing then, and takes what the memory held."""
    path = tmp_path / 'a.pth'
    torch.save({'w': torch.ones(3)}, path)
    content = bytearray(path.read_bytes())
    entry = content.rindex(b'/data/0') - len('a') - 46
    content[entry + 38] |= 0x10
    path.write_bytes(content)
    assert 'is damaged or cut short (the entry of a/data/0)' in refused(path)


def test_archive_without_checksums_is_taken_as_it_is(tmp_path):
    path = tmp_path / 'a.pth'
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({'w': torch.ones(3)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(load_file(path)['w'], torch.ones(3))


@pytest.mark.parametrize(
    ('content', 'text'),
    [
        (b'', 'it is empty'),
        (b'<!DOCTYPE html><p>Not found', 'it is a web page'),
        (b'version https://git-lfs.github.com/spec/v1\n', 'Git LFS pointer'),
        (b'weights', 'it is no file of torch.save'),
    ],
)
def test_what_is_no_checkpoint(tmp_path, content, text):
    (tmp_path / 'a.pth').write_bytes(content)
    assert text in refused(tmp_path / 'a.pth')
    assert not is_whole(tmp_path / 'a.pth')


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / 'no.pth', tmp_path):
        assert 'checkpoint not found' in refused(path)
        assert not is_whole(path)

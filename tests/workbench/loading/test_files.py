"""Weight files of every kind load with no more rights than weights need."""

from __future__ import annotations

import io
import os
import pickle
import sys
import types
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gn_det.workbench.errors import UserError
from gn_det.workbench.loading.files import load_file
from gn_det.workbench.loading.unpickle import load_pickle


class Evil:
    """Makes a folder when it is unpickled with full rights."""

    def __init__(self, place):
        self.place = str(place)

    def __reduce__(self):
        return (os.mkdir, (self.place,))


def arrays():
    generator = np.random.default_rng(0)
    return {
        'conv1_w': generator.standard_normal((4, 3, 2)).astype(np.float32),
        'big_endian': np.arange(3, dtype='>i8'),
        'fortran': np.asfortranarray(generator.standard_normal((3, 5))),
        'empty': np.zeros((0, 4), np.uint8),
        'scalar': np.float64(0.5),
        'flag': np.array([True, False]),
    }


def assert_same(given, wanted):
    assert list(given) == list(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(given[name], value)
        native = np.asarray(value).dtype.newbyteorder('=')
        assert np.asarray(given[name]).dtype == native
        assert not isinstance(given[name], np.ndarray) or given[name].flags.writeable


def python2_pickle() -> bytes:
    """`{'blobs': {'w': array([1.5, -2.0], float32)}}` as Python 2 writes it.

    There bytes and text are one type, which protocol 2 stores as SHORT_BINSTRING (U).
    """

    def text(value: bytes) -> bytes:
        return b'U' + bytes([len(value)]) + value

    raw = np.array([1.5, -2.0], '<f4').tobytes()
    dtype = (
        b'cnumpy\ndtype\n('
        + text(b'f4')
        + b'K\x00K\x01tR(K\x03'
        + text(b'<')
        # version, byte order, subdtype, names, fields, size, alignment, flags
        + b'NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb'
    )
    array = (
        b'cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t'
        + text(b'b')
        + b'tR(K\x01(K\x02t'
        + dtype
        + b'I00\n'
        + text(raw)
        + b'tb'
    )
    return b'\x80\x02}' + text(b'blobs') + b'}' + text(b'w') + array + b'ss.'


class TestPickle:
    @pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
    def test_arrays_and_containers(self, tmp_path, protocol):
        path = tmp_path / 'model.pkl'
        content = {
            'blobs': arrays(),
            'cfg': 'MODEL: {}',
            'rest': [1, (2.5, None), {3}, frozenset([4]), b'5', OrderedDict(a=True)],
        }
        path.write_bytes(pickle.dumps(content, protocol))
        loaded = load_file(path)
        assert_same(loaded['blobs'], content['blobs'])
        assert loaded['cfg'] == content['cfg']
        assert loaded['rest'] == content['rest']

    def test_file_of_python_2(self, tmp_path):
        path = tmp_path / 'R-50-GN.pkl'
        path.write_bytes(python2_pickle())
        loaded = load_file(path)
        assert_same(loaded['blobs'], {'w': np.array([1.5, -2.0], np.float32)})

    @pytest.mark.parametrize('numpy', [b'numpy.core', b'numpy._core'])
    def test_names_of_either_numpy(self, tmp_path, numpy):
        written = pickle.dumps({'blobs': arrays()}, 2)
        core = b'numpy._core' if b'numpy._core' in written else b'numpy.core'
        path = tmp_path / 'model.pkl'
        path.write_bytes(written.replace(core, numpy))
        assert_same(load_file(path)['blobs'], arrays())

    @pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
    def test_code_does_not_run_and_is_named(self, tmp_path, protocol):
        path = tmp_path / 'evil.pkl'
        content = {'blobs': {'w': Evil(tmp_path / 'pwned')}}
        path.write_bytes(pickle.dumps(content, protocol))
        with pytest.raises(UserError, match=r'evil\.pkl asks for posix\.mkdir,'):
            load_file(path)
        assert not (tmp_path / 'pwned').exists()

    @pytest.mark.parametrize(
        'name',
        [
            'builtins.eval',
            'builtins.getattr',
            '__builtin__.apply',
            'os.system',
            'numpy.load',
            'numpy.core.multiarray.fromfile',
            'numpy.testing._private.utils.runstring',
            'gn_det.workbench.loading.unpickle.ArrayUnpickler',
            # Dots in a name walk from an allowed thing to its attributes.
            'collections.OrderedDict.__init__',
        ],
    )
    def test_any_other_global_is_refused(self, tmp_path, name):
        module, _, attribute = name.rpartition('.')
        path = tmp_path / 'evil.pkl'
        path.write_bytes(f'\x80\x02c{module}\n{attribute}\n.'.encode('latin1'))
        with pytest.raises(UserError) as error:
            load_pickle(path)
        assert f'asks for {name}, and nothing but arrays' in str(error.value)

    def test_dotted_name_does_not_reach_attributes(self, tmp_path):
        path = tmp_path / 'evil.pkl'
        stack = b'\x80\x04\x8c\x05numpy\x8c\x0fndarray.tofile_\x93.'
        path.write_bytes(stack.replace(b'\x0fndarray.tofile_', b'\x0endarray.tofile'))
        with pytest.raises(UserError, match=r'asks for numpy\.ndarray\.tofile'):
            load_pickle(path)

    @pytest.mark.parametrize(
        'value', [np.array([{}], object), np.zeros(2, 'i4,f4'), np.array(['a'])]
    )
    def test_arrays_of_something_else_than_numbers(self, tmp_path, value):
        path = tmp_path / 'model.pkl'
        path.write_bytes(pickle.dumps({'blobs': {'w': value}}))
        with pytest.raises(UserError, match='an array of'):
            load_pickle(path)

    @pytest.mark.parametrize(
        'state',
        [
            (3, '<', None, ('a',), {'a': 1}, 4, 4, 0),
            (3, '<', (1, (2,)), None, None, 4, 4, 0),
        ],
        ids=['fields', 'subarray'],
    )
    def test_numbers_that_claim_to_be_structures(self, tmp_path, state):
        path = tmp_path / 'model.pkl'
        dtype = b'cnumpy\ndtype\n(U\x02f4I00\nI01\ntR'
        path.write_bytes(b'\x80\x02' + dtype + pickle.dumps(state, 2)[2:-1] + b'b.')
        with pytest.raises(UserError, match='asks for an array of structures'):
            load_pickle(path)

    def test_bytes_that_do_not_fit_the_shape(self, tmp_path):
        path = tmp_path / 'model.pkl'
        for shape in (b'K\x01', b'K\x03'):
            written = python2_pickle().replace(b'(K\x02t', b'(' + shape + b't')
            path.write_bytes(written)
            with pytest.raises(UserError, match='is no whole pickle file'):
                load_pickle(path)

    def test_object_outside_the_file(self, tmp_path):
        path = tmp_path / 'model.pkl'
        path.write_bytes(b'\x80\x02X\x01\x00\x00\x00aQ.')
        with pytest.raises(UserError, match="the persistent object 'a'"):
            load_pickle(path)

    @pytest.mark.parametrize(
        ('content', 'text'),
        [
            (b'', 'is no whole pickle file'),
            (b'\x80\x02', 'is no whole pickle file'),
            (pickle.dumps({'blobs': arrays()})[:-9], 'is no whole pickle file'),
            (pickle.dumps([1]), 'holds a list'),
            (b'<!DOCTYPE html>', 'is no whole pickle file'),
        ],
    )
    def test_what_is_none(self, tmp_path, content, text):
        path = tmp_path / 'model.pkl'
        path.write_bytes(content)
        with pytest.raises(UserError, match=text) as error:
            load_pickle(path)
        assert '\n' not in str(error.value)

    def test_missing(self, tmp_path):
        with pytest.raises(UserError, match=r'checkpoint not found: .*no\.pkl'):
            load_pickle(tmp_path / 'no.pkl')

    def test_what_is_referred_to_often_is_read_once(self, tmp_path):
        """Each list holds the one before it twice: 2**40 paths to the array."""
        shared = [np.arange(2)]
        for _ in range(40):
            shared = [shared, shared]
        path = tmp_path / 'model.pkl'
        path.write_bytes(pickle.dumps({'model': shared, 'pair': (shared, 1)}))
        found = load_pickle(path)
        assert found['pair'][0] is found['model']
        for _ in range(41):
            found = found['model'] if isinstance(found, dict) else found[1]
        assert_same({'a': found[0]}, {'a': np.arange(2)})

    def test_what_refers_to_itself(self, tmp_path):
        loop = {'model': [np.arange(2)]}
        loop['model'].append((loop, np.arange(3)))
        path = tmp_path / 'model.pkl'
        path.write_bytes(pickle.dumps(loop))
        found = load_pickle(path)
        assert found['model'][1][0] is found
        assert found['model'][1][1].tolist() == [0, 1, 2]

    @pytest.mark.parametrize('content', [b'', b'\x80\x04junk', b'hello'])
    def test_damaged_file_of_ones_own(self, tmp_path, content):
        path = tmp_path / 'own.pkl'
        path.write_bytes(content)
        with pytest.raises(UserError, match='it was not a pickle, or it is cut short'):
            load_file(path, trust=True)

    def test_full_rights_for_a_file_of_ones_own(self, tmp_path):
        path = tmp_path / 'own.pkl'
        path.write_bytes(pickle.dumps({'a': Evil(tmp_path / 'made')}))
        load_file(path, trust=True)
        assert (tmp_path / 'made').is_dir()


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
        loaded = load_file(
            save({'state_dict': OrderedDict(w=weights), 'meta': {'a': 1}})
        )
        assert torch.equal(loaded['state_dict']['w'], weights)
        assert loaded['meta'] == {'a': 1}

    def test_code_does_not_run_and_is_named(self, save, tmp_path):
        path = save({'state_dict': {'w': Evil(tmp_path / 'pwned')}})
        with pytest.raises(UserError, match=r'asks for posix\.mkdir') as error:
            load_file(path)
        assert not (tmp_path / 'pwned').exists()
        assert 'weights_only' not in str(error.value)
        load_file(path, trust=True)
        assert (tmp_path / 'pwned').is_dir()

    @pytest.mark.parametrize(
        ('value', 'kind'),
        [
            (np.array(['person']), '<U6'),
            (np.datetime64('2026-11-21', 's'), 'datetime64'),
            (np.array([None]), 'object'),
        ],
    )
    def test_arrays_of_something_else_are_named(self, save, value, kind):
        path = save({'state_dict': {}, 'meta': {'classes': value}})
        with pytest.raises(UserError, match=f'asks for an array of {kind}, and'):
            load_file(path)

    def test_cut_short(self, save):
        path = save({'state_dict': {'w': torch.randn(1000)}})
        path.write_bytes(path.read_bytes()[:-500])
        with pytest.raises(UserError, match='or it is cut short'):
            load_file(path)

    def test_class_of_a_module_that_is_gone_is_named(self, save, monkeypatch):
        module = types.ModuleType('old_project')
        module.Thing = type('Thing', (), {'__module__': 'old_project'})
        monkeypatch.setitem(sys.modules, 'old_project', module)
        path = save({'state_dict': {}, 'meta': module.Thing()})
        monkeypatch.delitem(sys.modules, 'old_project')
        with pytest.raises(UserError, match=r"not installed here: .*'old_project'"):
            load_file(path, trust=True)

    @pytest.mark.skipif(torch.cuda.is_available(), reason='needs no CUDA device')
    def test_device_that_is_not_there(self, save):
        path = save({'state_dict': {'w': torch.ones(1)}})
        with pytest.raises(UserError, match=r'cannot be loaded: .*CUDA') as error:
            load_file(path, map_location='cuda')
        assert '\n' not in str(error.value)


class TestSafetensors:
    def test_weights_and_meta(self, tmp_path):
        path = tmp_path / 'a.safetensors'
        weights = {'a.w': torch.randn(3, 4), 'n': torch.arange(3)}
        save_file(weights, path, {'meta': '{"classes": ["a"]}'})
        loaded = load_file(path)
        assert loaded['meta'] == {'classes': ['a']}
        assert loaded['state_dict'].keys() == weights.keys()
        for name, value in weights.items():
            assert torch.equal(loaded['state_dict'][name], value)

    @pytest.mark.parametrize(
        ('map_location', 'device'),
        [
            (None, 'cpu'),
            ('meta', 'meta'),
            (torch.device('meta'), 'meta'),
            ({'cpu': 'meta'}, 'meta'),
            ({'cuda:0': 'meta'}, 'cpu'),
            (lambda storage, place: storage, 'cpu'),
            (lambda storage, place: None, 'cpu'),
            (lambda storage, place: torch.empty(1, device='meta'), 'meta'),
        ],
    )
    def test_every_map_location_of_torch(self, tmp_path, map_location, device):
        path = tmp_path / 'a.safetensors'
        save_file({'w': torch.ones(1)}, path)
        loaded = load_file(path, map_location=map_location)['state_dict']['w']
        assert loaded.device.type == device

    @pytest.mark.parametrize(
        'map_location', ['nonsense', 2.5, torch.float16, [1], {'cpu': 'no'}]
    )
    def test_a_place_that_is_none(self, tmp_path, map_location):
        path = tmp_path / 'a.safetensors'
        save_file({'w': torch.ones(1)}, path)
        with pytest.raises(UserError, match='cannot be loaded') as error:
            load_file(path, map_location=map_location)
        assert '\n' not in str(error.value)

    def test_of_others_has_no_meta(self, tmp_path):
        save_file({'w': torch.ones(1)}, tmp_path / 'a.safetensors')
        assert load_file(tmp_path / 'a.safetensors')['meta'] == {}

    def test_meta_nested_too_deeply(self, tmp_path):
        path = tmp_path / 'a.safetensors'
        save_file({'w': torch.ones(1)}, path, {'meta': '[' * 100_000})
        with pytest.raises(UserError, match='no whole safetensors file'):
            load_file(path)

    def test_cut_short(self, tmp_path):
        path = tmp_path / 'a.safetensors'
        save_file({'w': torch.ones(100)}, path)
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(UserError, match='no whole safetensors file'):
            load_file(path)


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
    path = tmp_path / 'a.pth'
    path.write_bytes(content)
    with pytest.raises(UserError, match=text):
        load_file(path)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / 'no.pth', tmp_path):
        with pytest.raises(UserError, match='checkpoint not found'):
            load_file(path)


def test_pickle_of_torch_tensors_is_no_way_around(tmp_path):
    """A plain pickle that is named `.pth` gets the rights of a plain pickle."""
    path = tmp_path / 'a.pth'
    buffer = io.BytesIO()
    pickle.dump({'w': torch.ones(2)}, buffer)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match=r'asks for torch\._utils'):
        load_file(path)

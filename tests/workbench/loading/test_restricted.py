"""Weights, numbers and what a Runner keeps are unpickled, and nothing more."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pickle import UnpicklingError

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.optim import OneCycleLR
from mmengine.runner import CheckpointLoader
from torch.serialization import get_safe_globals

from gn_det.workbench.loading.restricted import load_pickle, load_torch

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class UserClass:
    """What a user put on torch's list."""


class Evil:
    """Makes a folder when it is unpickled with full rights."""

    def __init__(self, place):
        self.place = str(place)

    def __reduce__(self):
        return (os.mkdir, (self.place,))


def through_torch(content, **options):
    file = io.BytesIO()
    torch.save(content, file, **options)
    file.seek(0)
    return load_torch(file)


def through_pickle(content, protocol=None):
    return load_pickle(io.BytesIO(pickle.dumps(content, protocol)))


def message_hub() -> dict:
    """What a Runner keeps: losses as buffers, plain and NumPy values."""
    hub = MessageHub.get_instance(f'test-{np.random.default_rng().integers(1 << 30)}')
    for step in range(3):
        hub.update_scalar('train/loss', torch.tensor(1.5 + step))
        hub.update_scalar('train/time', np.float64(0.25))
    hub.update_info('best_score', np.float32(0.5))
    return hub.state_dict()


class TestCheckpointOfARun:
    def test_message_hub(self):
        hub = through_torch(message_hub())
        buffer = hub['log_scalars']['train/loss']
        assert isinstance(buffer, HistoryBuffer)
        assert buffer.mean() == 2.5
        assert buffer.statistics('max') == 3.5
        assert hub['runtime_info']['best_score'] == 0.5

    def test_empty_buffer(self):
        """Python pickles the memory of an empty array as `bytes()`."""
        assert len(through_torch(HistoryBuffer()).data[0]) == 0

    @pytest.mark.parametrize('strategy', ['cos', 'linear'])
    def test_schedule_of_one_cycle_goes_on(self, strategy):
        """mmengine pickles its method as `getattr(OneCycleParamScheduler, …)`."""

        def schedule() -> OneCycleLR:
            optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
            made = OneCycleLR(
                optimizer, eta_max=1.0, total_steps=9, anneal_strategy=strategy
            )
            optimizer.step()
            return made

        first, second = schedule(), schedule()
        for _ in range(3):
            first.step()
        second.load_state_dict(through_torch(first.state_dict()))
        for one in (first, second):
            one.step()
        assert second.get_last_value() == first.get_last_value()

    def test_statistics_of_a_file_do_not_reach_other_buffers(self, monkeypatch):
        """They are a table of the class, which mmengine would fill from the file."""
        statistics = dict(HistoryBuffer._statistics_methods)
        monkeypatch.setattr(HistoryBuffer, '_statistics_methods', statistics)
        buffer = HistoryBuffer([1.0, 9.0], [1, 1], max_length=7)
        file = io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setitem(statistics, 'mean', HistoryBuffer.max)
            torch.save([buffer, buffer], file)
        file.seek(0)
        first, second = load_torch(file)
        assert first is second
        assert first.max_length == 7
        for each in (first, HistoryBuffer([1.0, 9.0], [1, 1])):
            assert each.statistics('mean') == 5.0

    def test_it_loads_again_after_mmengine_has_loaded_one(self, tmp_path):
        """The fork's `safe_globals` takes names off torch's list on leaving."""
        path = str(tmp_path / 'epoch_1.pth')
        torch.save(dict(message_hub=message_hub(), a=np.arange(3)), path)
        CheckpointLoader.load_checkpoint(path, map_location='cpu')
        assert load_torch(path)['a'].tolist() == [0, 1, 2]


class TestArrays:
    @pytest.mark.parametrize('protocol', PROTOCOLS)
    def test_of_every_kind_in_a_pickle(self, protocol):
        content = {
            'normal': np.random.default_rng(0).random((4, 3, 2), np.float32),
            'big_endian': np.arange(3, dtype='>i8'),
            'fortran': np.asfortranarray(np.random.default_rng(0).random((3, 5))),
            'empty': np.zeros((0, 4), np.uint8),
            'scalar': np.float64(0.5),
            'flag': np.array([True, False]),
            'rest': [1, (2.5, None), {3}, frozenset([4]), b'5', OrderedDict(a=True)],
        }
        loaded = through_pickle(content, protocol)
        assert loaded.pop('rest') == content.pop('rest')
        for name, value in content.items():
            np.testing.assert_array_equal(loaded[name], value)
            assert loaded[name].dtype == np.asarray(value).dtype.newbyteorder('=')
            assert name == 'scalar' or loaded[name].flags.writeable

    @pytest.mark.parametrize('package', [b'numpy.core', b'numpy._core'])
    def test_by_the_names_of_either_numpy(self, package):
        written = pickle.dumps(np.arange(2), 2)
        core = b'numpy._core' if b'numpy._core' in written else b'numpy.core'
        loaded = load_pickle(io.BytesIO(written.replace(core, package)))
        assert loaded.tolist() == [0, 1]

    def test_wherever_they_are(self):
        state = OrderedDict(w=torch.ones(1))
        state._metadata = {'': {'version': np.int64(2), 'range': np.arange(2)}}
        state['w'].scale = np.float32([3])
        random = np.random.RandomState(5).get_state()
        kind = np.dtype('<f4')
        loaded = through_torch(
            dict(state=state, random=random, again=[random], kind=kind)
        )
        assert loaded['state']._metadata['']['range'].tolist() == [0, 1]
        assert loaded['state']['w'].scale == np.float32([3])
        assert loaded['again'][0] is loaded['random']
        assert loaded['kind'] == np.float32
        np.testing.assert_array_equal(loaded['random'][1], random[1])

    def test_have_the_types_of_numpy_itself(self):
        """To the buffer protocol a dtype that was given a byte order is another."""
        for array in through_torch([np.arange(3.0), np.arange(3.0, dtype='>f4')]):
            assert array.dtype.isbuiltin
            assert memoryview(array)[1] == 1.0

    @pytest.mark.parametrize('through', [through_torch, through_pickle])
    @pytest.mark.parametrize(
        ('value', 'kind'),
        [
            (np.array(['person']), '<U6'),
            (np.datetime64('2026-11-21', 's'), 'datetime64'),
            (np.array([None]), 'object'),
            (np.zeros(2, 'i4,f4'), 'V8'),
        ],
    )
    def test_of_something_else_are_refused(self, through, value, kind):
        with pytest.raises(UnpicklingError, match=f'asks for an array of .*{kind}'):
            through(value)


F4 = b'cnumpy\ndtype\n(X\x02\x00\x00\x00f4\x89\x88tR'
OBJECTS = b'cnumpy\ndtype\n]X\x01\x00\x00\x00aX\x01\x00\x00\x00O\x86a\x85R'
SCALAR = b'cnumpy.core.multiarray\nscalar\n'
BUFFER = b'cmmengine.logging.history_buffer\nHistoryBuffer\n'
ONE_CYCLE = b'cmmengine.optim.scheduler.param_scheduler\nOneCycleParamScheduler\n'
GETATTR = b'cbuiltins\ngetattr\n'
CRAFTED = {
    'fields': F4 + pickle.dumps((3, '<', None, ('a',), {'a': 1}, 4, 4, 0), 2)[2:-1],
    'subarray': F4 + pickle.dumps((3, '<', (1, (2,)), None, None, 4, 4, 0), 2)[2:-1],
    'uninitialised': b'cnumpy\nndarray\nK\x64\x85X\x02\x00\x00\x00u8\x86R',
    'objects': (
        SCALAR + OBJECTS + b'cnumpy\nndarray\nK\x00\x85' + OBJECTS + b'\x86R\x86R'
    ),
    'scalar without bytes': SCALAR + F4 + b'Jzzz\x7f\x86R',
    'too few bytes': SCALAR + F4 + b'X\x02\x00\x00\x00aa\x86R',
    'buffer without numbers': BUFFER + b')\x81',
    'class as a value': BUFFER,
    'many bytes': b'c__builtin__\nbytes\nK\x09\x85R',
    'method of its own': ONE_CYCLE + b')\x81}X\x08\x00\x00\x00unstoredNsb',
    'getattr of a class': GETATTR + BUFFER + b'X\x08\x00\x00\x00__init__',
    'getattr of a schedule': GETATTR + ONE_CYCLE + b'X\x08\x00\x00\x00__init__',
    'getattr of a dict': GETATTR + b'}X\x09\x00\x00\x00__class__',
}
for _name in ('fields', 'subarray'):
    CRAFTED[_name] += b'b'
for _name in [name for name in CRAFTED if name.startswith('getattr')]:
    CRAFTED[_name] += b'\x86R'


@pytest.mark.parametrize('name', CRAFTED)
def test_crafted_pickles_reach_nothing(name):
    """Each crashed or changed the process by NumPy's and mmengine's own functions."""
    given, made = io.BytesIO(), io.BytesIO()
    torch.save({}, given)
    with zipfile.ZipFile(given) as source, zipfile.ZipFile(made, 'w') as target:
        for member in source.namelist():
            is_pickle = member.endswith('data.pkl')
            content = b'\x80\x02' + CRAFTED[name] + b'.'
            target.writestr(member, content if is_pickle else source.read(member))
    made.seek(0)
    with pytest.raises((ValueError, TypeError, AttributeError, UnpicklingError)):
        load_torch(made)
    if not name.startswith(('many', 'getattr')):
        with pytest.raises((ValueError, TypeError, AttributeError, UnpicklingError)):
            load_pickle(io.BytesIO(b'\x80\x02' + CRAFTED[name] + b'.'))


class TestTorchsList:
    def test_other_loads_get_no_more_rights(self):
        before = set(get_safe_globals())
        file = io.BytesIO()
        torch.save(np.arange(3), file)
        file.seek(0)
        load_torch(file)
        assert set(get_safe_globals()) == before
        file.seek(0)
        with pytest.raises(UnpicklingError, match='_reconstruct'):
            torch.load(file, weights_only=True)

    def test_a_file_that_fails_leaves_it_too(self):
        before = set(get_safe_globals())
        with pytest.raises(UnpicklingError):
            through_torch(Evil('never'))
        assert set(get_safe_globals()) == before

    def test_what_the_user_allowed_is_kept_but_not_for_the_names_of_ours(self):
        listed = [UserClass, np.ndarray, np.dtype]
        with torch.serialization.safe_globals(listed):
            loaded = through_torch(dict(array=np.arange(3), own=UserClass()))
            assert set(listed) <= set(get_safe_globals())
        assert type(loaded['own']) is UserClass
        assert type(loaded['array']) is np.ndarray


def python2_pickle(length: bytes = b'\x02') -> bytes:
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
        + b'tR(K\x01(K'
        + length
        + b't'
        + dtype
        + b'I00\n'
        + text(raw)
        + b'tb'
    )
    return b'\x80\x02}' + text(b'blobs') + b'}' + text(b'w') + array + b'ss.'


class TestPlainPickle:
    def test_of_python_2(self):
        loaded = load_pickle(io.BytesIO(python2_pickle()))['blobs']['w']
        assert loaded.tolist() == [1.5, -2.0]
        for length in (b'\x01', b'\x03'):
            with pytest.raises((ValueError, TypeError), match=r'shape|too small'):
                load_pickle(io.BytesIO(python2_pickle(length)))

    @pytest.mark.parametrize('protocol', PROTOCOLS)
    def test_of_tensors(self, protocol):
        """mmdet's results hold them."""
        loaded = through_pickle([{'boxes': torch.arange(6.0).view(2, 3)}], protocol)
        assert torch.equal(loaded[0]['boxes'], torch.arange(6.0).view(2, 3))

    @pytest.mark.parametrize('protocol', PROTOCOLS)
    def test_code_does_not_run(self, tmp_path, protocol):
        with pytest.raises(UnpicklingError, match=r'asks for posix\.mkdir'):
            through_pickle({'w': Evil(tmp_path / 'pwned')}, protocol)
        assert not (tmp_path / 'pwned').exists()

    def test_code_in_the_memory_of_a_tensor_does_not_run(self, tmp_path):
        """A tensor's memory is a file of torch within the pickle."""
        file = io.BytesIO()
        torch.save(Evil(tmp_path / 'pwned'), file)
        inner = pickle.dumps(file.getvalue(), 3)[2:-1]
        stack = b'\x80\x03ctorch.storage\n_load_from_bytes\n' + inner + b'\x85R.'
        with pytest.raises(UnpicklingError, match=r'posix\.mkdir'):
            load_pickle(io.BytesIO(stack))
        assert not (tmp_path / 'pwned').exists()

    @pytest.mark.parametrize(
        'name',
        [
            'builtins.eval',
            'builtins.getattr',
            '__builtin__.apply',
            'numpy.load',
            'numpy.core.multiarray.fromfile',
            'numpy.testing._private.utils.runstring',
            'torch.load',
            'gn_det.workbench.loading.restricted.load_pickle',
            # Dots in a name walk from an allowed thing to its attributes.
            'collections.OrderedDict.__init__',
        ],
    )
    def test_any_other_name_is_refused(self, name):
        module, _, attribute = name.rpartition('.')
        stack = f'\x80\x02c{module}\n{attribute}\n.'.encode('latin1')
        with pytest.raises(UnpicklingError, match=f'asks for {name}$'):
            load_pickle(io.BytesIO(stack))

    @pytest.mark.parametrize(
        'stack',
        [
            b'\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.',
            b'\x80\x02X\x01\x00\x00\x00aQ.',
            # A default argument for everybody's function.
            b'\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x01\x00\x00\x00aNs\x86b.',
        ],
        ids=['dotted name', 'object outside the file', 'attribute of a function'],
    )
    def test_ways_around(self, stack):
        with pytest.raises(UnpicklingError, match='asks for'):
            load_pickle(io.BytesIO(stack))

    def test_what_is_referred_to_often_is_read_once(self):
        """Each list holds the one before it twice: 2**40 paths to the array."""
        shared = [np.arange(2)]
        for _ in range(40):
            shared = [shared, shared]
        found = through_pickle({'model': shared, 'pair': (shared, 1)})
        assert found['pair'][0] is found['model']
        for _ in range(41):
            found = found['model'] if isinstance(found, dict) else found[1]
        assert found[0].tolist() == [0, 1]

    def test_what_refers_to_itself(self):
        loop = {'model': [np.arange(2)]}
        loop['model'].append((loop, np.arange(3)))
        found = through_pickle(loop)
        assert found['model'][1][0] is found
        assert found['model'][1][1].tolist() == [0, 1, 2]

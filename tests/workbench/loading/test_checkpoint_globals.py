"""Training checkpoints load under `weights_only=True`, and nothing more does."""

from __future__ import annotations

import io
import pickle
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pickle import UnpicklingError

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.optim import OneCycleLR
from mmengine.runner import CheckpointLoader
from torch.serialization import add_safe_globals, get_safe_globals, safe_globals

import gn_det
from gn_det.workbench.loading import checkpoint_globals
from gn_det.workbench.loading.checkpoint_globals import stored_attribute
from gn_det.workbench.loading.stored_arrays import reading


class UserClass:
    """What a user put on torch's list."""


def message_hub() -> MessageHub:
    """What a Runner keeps: losses as buffers, plain and NumPy values."""
    hub = MessageHub.get_instance(f'test-{np.random.default_rng().integers(1 << 30)}')
    for step in range(3):
        hub.update_scalar('train/loss', torch.tensor(1.5 + step))
        hub.update_scalar('train/time', np.float64(0.25))
    hub.update_info('best_score', np.float32(0.5))
    return hub


def test_training_checkpoint_loads_with_weights_only(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(message_hub=message_hub().state_dict()), path)
    loaded = checkpoint_globals.load(str(path))
    buffer = loaded['message_hub']['log_scalars']['train/loss']
    assert isinstance(buffer, HistoryBuffer)
    assert buffer.mean() == 2.5
    assert buffer.statistics('max') == 3.5


def test_mmengine_loads_it_without_falling_back_to_full_rights(tmp_path, monkeypatch):
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(message_hub=message_hub().state_dict()), path)
    rights = []
    original = torch.load

    def spy(*args, weights_only=True, **kwargs):
        rights.append(weights_only)
        return original(*args, weights_only=weights_only, **kwargs)

    monkeypatch.setattr(torch, 'load', spy)
    CheckpointLoader.load_checkpoint(str(path), map_location='cpu')
    assert rights == [True]


def test_it_loads_again_after_mmengine_has_loaded_one(tmp_path):
    """The fork's `safe_globals` context takes names off torch's list on leaving."""
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(message_hub=message_hub().state_dict(), a=np.arange(3)), path)
    CheckpointLoader.load_checkpoint(str(path), map_location='cpu')
    assert checkpoint_globals.load(str(path))['a'].tolist() == [0, 1, 2]


def test_numpy_arrays_of_either_major_version_load(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(dict(array=np.arange(3), scalar=np.int64(7)), path)
    loaded = checkpoint_globals.load(str(path))
    assert loaded['array'].tolist() == [0, 1, 2]
    assert loaded['scalar'] == 7


@pytest.mark.parametrize(
    ('owner', 'name'),
    [(HistoryBuffer, '__init__'), (HistoryBuffer, '__globals__'), (gn_det, 'compat')],
)
def test_getattr_of_a_checkpoint_reaches_statistics_only(owner, name):
    stand_in = checkpoint_globals._StoredHistoryBuffer
    with reading():
        assert stored_attribute(stand_in, 'mean') is HistoryBuffer.mean
    with reading(), pytest.raises(UnpicklingError, match='only the statistics'):
        stored_attribute(stand_in if owner is HistoryBuffer else owner, name)


@pytest.mark.parametrize('strategy', ['cos', 'linear'])
def test_schedule_of_one_cycle_goes_on(tmp_path, strategy):
    """mmengine pickles its static method as `getattr(OneCycleParamScheduler, …)`."""

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
    torch.save(first.state_dict(), tmp_path / 'a.pth')
    second.load_state_dict(checkpoint_globals.load(tmp_path / 'a.pth'))
    for one in (first, second):
        one.step()
    assert second.get_last_value() == first.get_last_value()


def test_statistics_of_a_file_do_not_reach_other_buffers(tmp_path, monkeypatch):
    """They are a table of the class, which mmengine would fill from the file."""
    statistics = dict(HistoryBuffer._statistics_methods)
    monkeypatch.setattr(HistoryBuffer, '_statistics_methods', statistics)
    buffer = HistoryBuffer([1.0, 9.0], [1, 1], max_length=7)
    with monkeypatch.context() as patch:
        patch.setitem(statistics, 'mean', HistoryBuffer.max)
        torch.save([buffer, buffer], tmp_path / 'a.pth')
    first, second = checkpoint_globals.load(tmp_path / 'a.pth')
    assert first is second
    assert first.max_length == 7
    for each in (first, HistoryBuffer([1.0, 9.0], [1, 1])):
        assert each.statistics('mean') == 5.0


def wrapped(pickled: bytes) -> io.BytesIO:
    """torch's archive with a pickle of one's own in it."""
    given, made = io.BytesIO(), io.BytesIO()
    torch.save({}, given)
    with zipfile.ZipFile(given) as source, zipfile.ZipFile(made, 'w') as target:
        for name in source.namelist():
            is_pickle = name.endswith('data.pkl')
            target.writestr(name, pickled if is_pickle else source.read(name))
    made.seek(0)
    return made


F4 = b'cnumpy\ndtype\n(X\x02\x00\x00\x00f4\x89\x88tR'
OBJECTS = b'cnumpy\ndtype\n]X\x01\x00\x00\x00aX\x01\x00\x00\x00O\x86a\x85R'
ONE_CYCLE = b'cmmengine.optim.scheduler.param_scheduler\nOneCycleParamScheduler\n)\x81'
SCALAR = b'cnumpy.core.multiarray\nscalar\n'


@pytest.mark.parametrize(
    ('state', 'reason'),
    [
        ((3, '<', None, ('a',), {'a': 1}, 4, 4, 0), 'structures'),
        ((3, '<', (1, (2,)), None, None, 4, 4, 0), 'structures'),
    ],
    ids=['fields', 'subarray'],
)
def test_numbers_that_claim_to_be_structures(state, reason):
    file = wrapped(b'\x80\x02' + F4 + pickle.dumps(state, 2)[2:-1] + b'b.')
    with pytest.raises(UnpicklingError, match=f'asks for an array of {reason}'):
        checkpoint_globals.load(file)


@pytest.mark.parametrize(
    'pickled',
    [
        b'cnumpy\nndarray\nK\x64\x85X\x02\x00\x00\x00u8\x86R',
        SCALAR + OBJECTS + b'cnumpy\nndarray\nK\x00\x85' + OBJECTS + b'\x86R\x86R',
        SCALAR + F4 + b'Jzzz\x7f\x86R',
        b'cmmengine.logging.history_buffer\nHistoryBuffer\n)\x81',
        b'c__builtin__\nbytes\nK\x09\x85R',
        ONE_CYCLE + b'}X\x08\x00\x00\x00unstoredNsb',
    ],
    ids=[
        'uninitialised',
        'objects',
        'scalar of no bytes',
        'buffer',
        'many bytes',
        'method of its own',
    ],
)
def test_what_has_no_content_of_its_own(pickled):
    with pytest.raises((ValueError, TypeError, UnpicklingError)):
        checkpoint_globals.load(wrapped(b'\x80\x02' + pickled + b'.'))


def test_other_loads_get_no_more_rights(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    torch.save(np.arange(3), tmp_path / 'a.pth')
    checkpoint_globals.load(tmp_path / 'a.pth')
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(UnpicklingError, match='_reconstruct'):
        torch.load(tmp_path / 'a.pth', weights_only=True)


def test_what_the_user_allowed_is_kept_but_not_for_the_names_of_ours(tmp_path):
    torch.save(dict(array=np.arange(3), own=UserClass()), tmp_path / 'a.pth')
    with torch.serialization.safe_globals([UserClass, np.ndarray, np.dtype]):
        loaded = checkpoint_globals.load(tmp_path / 'a.pth')
        assert np.dtype in torch.serialization.get_safe_globals()
    assert type(loaded['own']) is UserClass
    assert type(loaded['array']) is np.ndarray


def test_arrays_wherever_they_are(tmp_path):
    state = OrderedDict(w=torch.ones(1))
    state._metadata = {'': {'version': np.int64(2), 'range': np.arange(2)}}
    state['w'].scale = np.float32([3])
    random = np.random.RandomState(5).get_state()
    content = dict(state=state, random=random, again=[random], kind=np.dtype('<f4'))
    torch.save(content, tmp_path / 'a.pth')
    loaded = checkpoint_globals.load(tmp_path / 'a.pth')
    assert loaded['state']._metadata['']['range'].tolist() == [0, 1]
    assert loaded['state']['w'].scale == np.float32([3])
    assert loaded['again'][0] is loaded['random']
    assert loaded['kind'] == np.float32
    np.testing.assert_array_equal(loaded['random'][1], random[1])


def test_an_empty_history_buffer_loads(tmp_path):
    """Python pickles the memory of an empty array as `bytes()`."""
    path = tmp_path / 'a.pth'
    torch.save({'message_hub': HistoryBuffer()}, path)
    buffer = checkpoint_globals.load(str(path))['message_hub']
    assert len(buffer.data[0]) == 0


def test_arrays_have_the_types_of_numpy_itself(tmp_path):
    """A dtype that was given a byte order is another one for the buffer protocol."""
    torch.save([np.arange(3.0), np.arange(3.0, dtype='>f4')], tmp_path / 'a.pth')
    for array in checkpoint_globals.load(tmp_path / 'a.pth'):
        assert array.dtype.isbuiltin
        assert memoryview(array)[1] == 1.0


class Late:
    """What somebody lists while a checkpoint is read."""


def while_it_reads(action: Callable[[], object]) -> None:
    """Do something in another thread while this one loads a checkpoint."""

    def meet(storage, _):
        thread = threading.Thread(target=action)
        thread.start()
        thread.join()
        return storage

    file = io.BytesIO()
    torch.save(dict(array=np.arange(2), w=torch.ones(1)), file)
    file.seek(0)
    loaded = checkpoint_globals.load(file, map_location=meet)
    assert loaded['array'].tolist() == [0, 1]


def test_what_others_list_meanwhile_stays():
    before = set(get_safe_globals())
    try:
        while_it_reads(lambda: add_safe_globals([Late]))
        assert set(get_safe_globals()) == before | {Late}
    finally:
        with safe_globals([Late]):
            pass


def test_what_others_take_off_meanwhile_stays_off():
    before = set(get_safe_globals())
    context = safe_globals([Late])
    context.__enter__()
    while_it_reads(lambda: context.__exit__(None, None, None))
    assert set(get_safe_globals()) == before


def pickles() -> dict[str, object]:
    return dict(
        array=np.arange(3),
        scalar=np.float64(1),
        dtype=np.dtype('f4'),
        buffer=HistoryBuffer([1.0], [1]),
        statistics=HistoryBuffer.mean,
        annealing=OneCycleLR._annealing_cos,
        empty=np.array([]),
    )


@pytest.mark.parametrize('name', pickles())
def test_loads_of_other_threads_meet_no_stand_ins(name):
    file = io.BytesIO()
    # Bound to its name the way mmengine's state dicts refer to it.
    torch.save({'value': pickles()[name]}, file)
    met = []

    def plain_load() -> None:
        file.seek(0)
        try:
            met.append(torch.load(file, weights_only=True))
        except UnpicklingError as error:
            met.append(str(error))

    while_it_reads(plain_load)
    assert 'another thread reads a checkpoint' in met[0]


def test_a_load_within_a_load():
    file = io.BytesIO()
    torch.save(dict(array=np.arange(2), w=torch.ones(1)), file)
    inner = []

    def load_again(storage, _):
        inner.append(checkpoint_globals.load(io.BytesIO(file.getvalue())))
        return storage

    before = set(get_safe_globals())
    outer = checkpoint_globals.load(
        io.BytesIO(file.getvalue()), map_location=load_again
    )
    assert outer['array'].tolist() == inner[0]['array'].tolist() == [0, 1]
    assert set(get_safe_globals()) == before

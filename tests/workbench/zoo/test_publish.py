"""Published checkpoints: weights and meta, named by their content, load anywhere."""

from __future__ import annotations

import enum
import errno
import hashlib
import os
import sys
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from gn_det.workbench.errors import UserError
from gn_det.workbench.loading.digests import Digest
from gn_det.workbench.loading.files import load_file
from gn_det.workbench.loading.weights import check_weight
from gn_det.workbench.zoo.publish import publish
from tests.running import assert_success, run

META = {
    'dataset_meta': {'classes': ('box', 'disc'), 'palette': [(1, 2, 3), (4, 5, 6)]},
    'cfg': "model = dict(type='MaskRCNN')\n",
    'epoch': 2,
    'gn_det_conversion': {'mean': np.float32(103.53), 'box': np.arange(2)},
}


def training_checkpoint(**changes):
    """What mmengine's Runner saves, in small."""
    state = OrderedDict(
        {'w': torch.randn(4, 3), 'b': torch.arange(8.0)[2:4], 'n': torch.tensor(7)}
    )
    state._metadata = OrderedDict({'': {'version': 2}})
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    return {
        'meta': {**META, 'seed': 1, 'time': 'today', 'hook_msgs': {'best': 'a.pth'}},
        'state_dict': state,
        'message_hub': {'log_scalars': {'train/loss': buffer}},
        'optimizer': {'state': {0: {'momentum_buffer': torch.randn(4, 3)}}},
        'param_schedulers': [{'last_step': 3}],
        **changes,
    }


@pytest.fixture
def source(tmp_path):
    path = tmp_path / 'epoch_2.pth'
    torch.save(training_checkpoint(), path)
    return path


def assert_same(given, wanted):
    assert given.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(given[name], value)


def test_only_weights_and_meta_are_left(source, tmp_path):
    path, dropped = publish(source, tmp_path / 'out' / 'gn')
    published = torch.load(path, weights_only=True)
    assert published.keys() == {'state_dict', 'meta'}
    wanted = load_file(source)
    assert_same(published['state_dict'], wanted['state_dict'])
    assert published['state_dict']._metadata == wanted['state_dict']._metadata
    assert published['meta'] == {
        **META,
        'gn_det_conversion': {'mean': float(np.float32(103.53)), 'box': [0, 1]},
    }
    assert dropped == [
        'message_hub',
        'optimizer',
        'param_schedulers',
        'meta.seed',
        'meta.time',
        'meta.hook_msgs',
    ]


def test_it_loads_where_gn_det_is_unknown(source, tmp_path):
    path, _ = publish(source, tmp_path / 'gn')
    code = (
        'import sys, torch\n'
        f'content = torch.load({str(path)!r}, weights_only=True)\n'
        'assert sorted(content) == ["meta", "state_dict"]\n'
        'assert "gn_det" not in sys.modules and "mmengine" not in sys.modules\n'
    )
    assert_success(run(sys.executable, '-c', code))


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_name_holds_the_digest_of_the_content(source, tmp_path, suffix):
    path, _ = publish(source, tmp_path / 'gn', safetensors=suffix != '.pth')
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.name == f'gn-{digest[:8]}{suffix}'
    assert Digest.from_name(path.name).matches(path)
    beside = path.with_name(f'{path.name}.sha256')
    assert beside.read_text() == f'{digest}  {path.name}\n'


@pytest.mark.parametrize('safetensors', [True, False])
def test_same_content_gives_the_same_file(source, tmp_path, safetensors):
    paths = {
        publish(source, tmp_path / 'gn', safetensors=safetensors)[0] for _ in range(2)
    }
    again, _ = publish(paths.pop(), tmp_path / 'a' / 'gn', safetensors=safetensors)
    assert not paths
    assert (tmp_path / again.name).read_bytes() == again.read_bytes()


def test_safetensors_hold_the_same(source, tmp_path):
    path, _ = publish(source, tmp_path / 'gn', safetensors=True)
    published, wanted = load_file(path), load_file(source)
    assert_same(published['state_dict'], wanted['state_dict'])
    assert published['meta']['dataset_meta']['classes'] == ['box', 'disc']
    assert published['meta']['cfg'] == META['cfg']


def test_a_view_does_not_drag_its_storage_along(tmp_path):
    large = torch.zeros(1_000_000)
    torch.save({'state_dict': {'w': large[:4]}}, tmp_path / 'a.pth')
    path, _ = publish(tmp_path / 'a.pth', tmp_path / 'gn')
    assert path.stat().st_size < 10_000


def test_shared_weights_become_their_own(tmp_path):
    shared = torch.randn(4)
    torch.save({'state_dict': {'a': shared, 'b': shared}}, tmp_path / 'a.pth')
    path, _ = publish(tmp_path / 'a.pth', tmp_path / 'gn', safetensors=True)
    assert_same(load_file(path)['state_dict'], {'a': shared, 'b': shared})


@pytest.mark.parametrize('prefix', ['module.', '_orig_mod.', 'module._orig_mod.'])
def test_names_of_wrapped_models_become_plain(tmp_path, prefix):
    state = {f'{prefix}w': torch.ones(2), f'{prefix}a._orig_mod.b': torch.ones(1)}
    torch.save({'state_dict': state}, tmp_path / 'a.pth')
    path, _ = publish(tmp_path / 'a.pth', tmp_path / 'gn')
    assert load_file(path)['state_dict'].keys() == {'w', 'a.b'}


def test_weights_without_meta(tmp_path):
    torch.save({'w': torch.ones(2)}, tmp_path / 'a.pth')
    path, dropped = publish(tmp_path / 'a.pth', tmp_path / 'gn')
    assert load_file(path)['meta'] == {}
    assert dropped == []


def test_average_of_an_ema_hook_is_what_is_published(tmp_path):
    """The hook saves the average as `state_dict`, the training copy beside it."""
    content = training_checkpoint(ema_state_dict={'module.w': torch.zeros(4, 3)})
    torch.save(content, tmp_path / 'a.pth')
    path, dropped = publish(tmp_path / 'a.pth', tmp_path / 'gn')
    assert_same(load_file(path)['state_dict'], content['state_dict'])
    assert 'ema_state_dict' in dropped


@pytest.mark.parametrize('suffix', ['.pth', '.PTH', '.safetensors'])
def test_suffix_of_the_prefix_is_dropped(source, tmp_path, suffix):
    path, _ = publish(source, tmp_path / f'r50-2.5x{suffix}')
    assert path.name.startswith('r50-2.5x-')


def test_another_file_of_that_name_is_left_alone(source, tmp_path):
    path, _ = publish(source, tmp_path / 'gn')
    path.write_bytes(b'mine')
    with pytest.raises(UserError, match=f'{path.name} is another file'):
        publish(source, tmp_path / 'gn')
    assert path.read_bytes() == b'mine'
    assert {each.name for each in tmp_path.iterdir()} == {
        source.name,
        path.name,
        f'{path.name}.sha256',
    }


@pytest.mark.parametrize('step', ['fsync', 'replace'])
def test_full_disk_leaves_nothing(source, tmp_path, monkeypatch, step):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(UserError, match='No space left on device'):
        publish(source, tmp_path / 'gn')
    assert os.listdir(tmp_path) == [source.name]


class Evil:
    def __init__(self, place):
        self.place = str(place)

    def __reduce__(self):
        return (os.mkdir, (self.place,))


@pytest.mark.parametrize(
    ('content', 'text'),
    [
        ({'state_dict': {'w': 1}}, 'w is a int'),
        ({'state_dict': {}}, 'holds no state_dict'),
        ([1], 'holds a list'),
        (
            {
                'state_dict': {'w': torch.ones(1)},
                'meta': {'a': [HistoryBuffer([1.0], [1])]},
            },
            'meta.a is a HistoryBuffer',
        ),
        ({'state_dict': {'w': torch.ones(1)}, 'meta': [1]}, 'holds a list as its meta'),
        ({'state_dict': {1: torch.ones(1)}}, 'the name 1 is no text'),
        ({'w': torch.ones(1, device='meta')}, 'holds no values for w'),
        ({'w': torch.eye(2).to_sparse()}, 'holds a sparse tensor under w'),
        ({'w': torch.zeros(1).expand(10**13)}, 'holds a tensor of 37253 GiB under w'),
    ],
)
@pytest.mark.filterwarnings('ignore:Validating sparse')
def test_what_is_not_published(tmp_path, content, text):
    torch.save(content, tmp_path / 'a.pth')
    with pytest.raises(UserError, match=text):
        publish(tmp_path / 'a.pth', tmp_path / 'gn')
    assert os.listdir(tmp_path) == ['a.pth']


@pytest.mark.filterwarnings('ignore:torch.quantize_per')
@pytest.mark.filterwarnings('ignore:.*is deprecated')
@pytest.mark.parametrize('per_channel', [True, False])
def test_quantized_weights(per_channel):
    w = torch.randn(4, 6)
    if per_channel:
        ones = torch.ones(4)
        w = torch.quantize_per_channel(w, ones, torch.zeros(4), 0, torch.qint8)
    else:
        w = torch.quantize_per_tensor(w, 0.1, 0, torch.qint8)
    with pytest.raises(UserError, match='holds a quantized tensor under w'):
        check_weight(w, 'w')


def test_numbers_that_safetensors_has_no_name_for(tmp_path):
    content = {'a': torch.ones(2), 'w': torch.ones(2, dtype=torch.complex128)}
    torch.save(content, tmp_path / 'a.pth')
    text = r'a\.pth holds complex128 under w, which safetensors cannot carry'
    with pytest.raises(UserError, match=text):
        publish(tmp_path / 'a.pth', tmp_path / 'gn', safetensors=True)
    assert os.listdir(tmp_path) == ['a.pth']
    path, _ = publish(tmp_path / 'a.pth', tmp_path / 'gn')
    assert_same(load_file(path)['state_dict'], content)


def test_a_state_dict_of_any_mapping(tmp_path):
    content = {'state_dict': defaultdict(int, w=torch.ones(1))}
    torch.save(content, tmp_path / 'a.pth')
    path, _ = publish(tmp_path / 'a.pth', tmp_path / 'gn', trust=True)
    published = torch.load(path, weights_only=True)['state_dict']
    assert type(published) is OrderedDict
    assert_same(published, content['state_dict'])


class Dataset(str, enum.Enum):
    COCO = 'coco'


class Level(enum.IntEnum):
    HIGH = 3


def test_enums_are_published_as_their_values(tmp_path):
    meta = {Dataset.COCO: Dataset.COCO, 'level': Level.HIGH}
    torch.save({'state_dict': {'w': torch.ones(1)}, 'meta': meta}, tmp_path / 'a.pth')
    path, _ = publish(tmp_path / 'a.pth', tmp_path / 'gn', trust=True)
    published = torch.load(path, weights_only=True)['meta']
    assert published == {'coco': 'coco', 'level': 3}
    assert {type(value) for value in published.values()} == {str, int}


def nested(depth):
    """Lists of which each holds the one before it twice."""
    value = []
    for _ in range(depth):
        value = [value, value]
    return value


def test_meta_that_would_never_end(tmp_path, monkeypatch):
    monkeypatch.setattr('gn_det.workbench.zoo.publish._MOST_META_VALUES', 1000)
    loop = []
    loop.append(loop)
    for value, text in (
        (nested(40), 'holds more than 1000 values in its meta'),
        (loop, 'nested too deeply'),
    ):
        content = {'state_dict': {'w': torch.ones(1)}, 'meta': {'x': value}}
        torch.save(content, tmp_path / 'a.pth')
        with pytest.raises(UserError, match=text):
            publish(tmp_path / 'a.pth', tmp_path / 'gn')


@pytest.mark.parametrize('meta', [{1: 2, 'a': 3}, {(1, 2): 3}])
def test_meta_that_safetensors_cannot_carry(tmp_path, meta):
    torch.save({'state_dict': {'w': torch.ones(1)}, 'meta': meta}, tmp_path / 'a.pth')
    with pytest.raises(UserError, match='which safetensors cannot carry'):
        publish(tmp_path / 'a.pth', tmp_path / 'gn', safetensors=True)
    path, _ = publish(tmp_path / 'a.pth', tmp_path / 'gn')
    assert load_file(path)['meta'] == meta


def test_prefix_that_is_a_folder(source, tmp_path):
    for prefix in (tmp_path, f'{tmp_path}/new/'):
        with pytest.raises(UserError, match='is a folder'):
            publish(source, prefix)
    assert os.listdir(tmp_path) == [source.name]


def test_what_the_system_refuses_names_the_file(source, tmp_path, monkeypatch):
    # Root may go everywhere, so the system is played.
    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'is_file', refuse)
        with pytest.raises(UserError, match=f'cannot use {source}: Permission denied'):
            publish(source, tmp_path / 'gn')
    monkeypatch.setattr(Path, 'is_dir', refuse)
    with pytest.raises(UserError, match=f'cannot use {tmp_path}/gn: Permission denied'):
        publish(source, tmp_path / 'gn')


def test_code_in_the_source_does_not_run(tmp_path):
    content = training_checkpoint(extra=Evil(tmp_path / 'made'))
    torch.save(content, tmp_path / 'a.pth')
    with pytest.raises(UserError, match=r'asks for posix\.mkdir'):
        publish(tmp_path / 'a.pth', tmp_path / 'gn')
    assert os.listdir(tmp_path) == ['a.pth']
    path, dropped = publish(tmp_path / 'a.pth', tmp_path / 'gn', trust=True)
    assert (tmp_path / 'made').is_dir()
    assert 'extra' in dropped
    assert b'mkdir' not in path.read_bytes()

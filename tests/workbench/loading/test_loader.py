"""mmengine's checkpoint loader: our downloads, and nothing with full rights."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import pickle
import sys

import numpy as np
import pytest
import torch
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader, load_checkpoint
from torch import nn

from gn_det.workbench import _fetch
from gn_det.workbench.errors import UserError
from gn_det.workbench.loading import loader
from gn_det.workbench.loading.files import TRUST_VARIABLE, trust_local_files
from tests.running import assert_success, run
from tests.workbench.loading.evil import Evil
from tests.workbench.zoo.server import hashed_name

FORK = multiprocessing.get_context('fork')
WEIGHTS = {'conv.weight': torch.randn(4, 3, 1, 1), 'conv.bias': torch.randn(4)}


class Model(BaseModule):
    def __init__(self, checkpoint):
        super().__init__(init_cfg=dict(type='Pretrained', checkpoint=checkpoint))
        self.conv = nn.Conv2d(3, 4, 1)


def as_file(content) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def load(name):
    return CheckpointLoader.load_checkpoint(str(name), map_location='cpu')


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    """A cache of the test's own, and neither trust nor proxy."""
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path / 'mmengine'))
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    for name in (TRUST_VARIABLE, 'GN_DET_OFFLINE', 'GN_DET_MIRRORS'):
        monkeypatch.delenv(name, raising=False)
    loader.install(_fetch)


@pytest.fixture
def hub(tmp_path, server):
    """Adds a key to mmengine's table of `open-mmlab://` names."""

    def add(key, value):
        folder = tmp_path / 'mmengine'
        folder.mkdir(exist_ok=True)
        (folder / 'open_mmlab.json').write_text(json.dumps({key: value}))
        return f'open-mmlab://{key}'

    return add


def test_every_scheme_is_ours():
    assert set(CheckpointLoader._schemes.values()) == {loader.load_from_gn_det}


def test_it_is_installed_whenever_mmengine_comes():
    code = (
        'import sys\n'
        'from gn_det.workbench.loading import loader\n'
        'for _ in range(2): loader.install(None)\n'
        'assert "mmengine.runner" not in sys.modules\n'
        'finders = len(sys.meta_path)\n'
        'from mmengine.runner import CheckpointLoader\n'
        'assert len(sys.meta_path) == finders - 1\n'
        'assert CheckpointLoader._schemes[""] is loader.load_from_gn_det\n'
    )
    assert_success(run(sys.executable, '-c', code))


class TestInitCfg:
    @pytest.fixture(params=['http', 'open-mmlab', 'local'])
    def name_of(self, request, server, hub, tmp_path):
        def give(content):
            file_name = hashed_name(content)
            if request.param == 'local':
                (tmp_path / file_name).write_bytes(content)
                return str(tmp_path / file_name)
            url = server.add(f'/{file_name}', content)
            return url if request.param == 'http' else hub('own/model', url)

        return give

    @pytest.mark.parametrize('wrapped', [True, False])
    def test_weights_arrive(self, name_of, wrapped):
        content = {'state_dict': WEIGHTS, 'meta': {}} if wrapped else WEIGHTS
        model = Model(name_of(as_file(content)))
        model.init_weights()
        assert torch.equal(model.conv.weight, WEIGHTS['conv.weight'])
        assert torch.equal(model.conv.bias, WEIGHTS['conv.bias'])

    def test_code_does_not_run_and_is_named(self, name_of, tmp_path):
        evil = {'state_dict': WEIGHTS, 'meta': Evil(tmp_path / 'pwned')}
        model = Model(name_of(as_file(evil)))
        with pytest.raises(UserError, match=r'asks for posix\.mkdir'):
            model.init_weights()
        assert not (tmp_path / 'pwned').exists()

    def test_plain_pickle_does_not_run_either(self, name_of, tmp_path):
        model = Model(name_of(pickle.dumps({'w': Evil(tmp_path / 'pwned')})))
        with pytest.raises(UserError, match=r'asks for posix\.mkdir'):
            model.init_weights()
        assert not (tmp_path / 'pwned').exists()


class TestNetwork:
    def test_file_is_cached_and_checked_again(self, server, tmp_path):
        content = as_file({'state_dict': WEIGHTS})
        name = hashed_name(content)
        url = server.add(f'/{name}', content)
        for _ in range(2):
            load_checkpoint(Model(None), url)
        assert server.count(f'/{name}') == 1
        cached = tmp_path / 'hub' / 'checkpoints' / name
        cached.write_bytes(content[:-1])
        load_checkpoint(Model(None), url)
        assert cached.read_bytes() == content

    def test_wrong_file_is_never_read(self, server, tmp_path):
        url = server.add('/a-00112233.pth', as_file(Evil(tmp_path / 'pwned')))
        with pytest.raises(UserError, match='sent a wrong file'):
            load(url)
        assert not (tmp_path / 'pwned').exists()
        assert os.listdir(tmp_path / 'hub' / 'checkpoints') == []

    def test_trust_is_for_local_files_only(self, server, tmp_path, monkeypatch):
        monkeypatch.setenv(TRUST_VARIABLE, '1')
        content = as_file({'state_dict': WEIGHTS, 'meta': Evil(tmp_path / 'made')})
        url = server.add(f'/{hashed_name(content)}', content)
        with pytest.raises(UserError, match=r'asks for posix\.mkdir'):
            load(url)
        assert not (tmp_path / 'made').exists()

    @pytest.mark.parametrize(
        ('scheme', 'table', 'key'),
        [
            ('torchvision://own', 'get_torchvision_models', 'own'),
            ('modelzoo://own', 'get_torchvision_models', 'own'),
            ('mmcls://own', 'get_mmcls_models', 'own'),
        ],
    )
    def test_other_tables(self, server, tmp_path, monkeypatch, scheme, table, key):
        content = as_file({'backbone.w': torch.ones(1), 'a': Evil(tmp_path / 'pwned')})
        url = server.add(f'/{hashed_name(content)}', content)
        monkeypatch.setattr(f'mmengine.runner.checkpoint.{table}', lambda: {key: url})
        with pytest.raises(UserError, match=r'asks for posix\.mkdir'):
            load(scheme)
        with pytest.raises(UserError, match='knows no model'):
            load(f'{scheme}-not')
        assert not (tmp_path / 'pwned').exists()

    @pytest.mark.parametrize('scheme', ['s3://', 'petrel://', 'own:s3://'])
    def test_object_store(self, tmp_path, monkeypatch, scheme):
        files = {
            f'{scheme}a.pth': as_file(WEIGHTS),
            f'{scheme}evil.pth': as_file([Evil(tmp_path / 'pwned')]),
        }
        monkeypatch.setattr('mmengine.fileio.get_file_backend', lambda *_, **__: files)
        assert load(f'{scheme}a.pth').keys() == WEIGHTS.keys()
        with pytest.raises(UserError, match=rf'{scheme}evil.pth asks for posix\.mkdir'):
            load(f'{scheme}evil.pth')
        assert not (tmp_path / 'pwned').exists()

    def test_names_mmengine_does_not_know(self, hub):
        hub('own/model', 'http://127.0.0.1:1/a.pth')
        with pytest.raises(UserError, match=r'did you mean detectron/resnet50_gn'):
            load('open-mmlab://detectron/resnet50gn')
        with pytest.raises(UserError, match='pavi:// is not supported'):
            load('pavi://a')

    def test_name_of_a_file_beside_the_users_own_table(self, hub, tmp_path):
        name = hub('own/model', 'mine.pth')
        (tmp_path / 'mmengine' / 'mine.pth').write_bytes(as_file(WEIGHTS))
        assert load(name).keys() == WEIGHTS.keys()


class TestLocal:
    def test_trusted_by_the_user(self, tmp_path, monkeypatch):
        path = tmp_path / 'own.pth'
        path.write_bytes(as_file({'state_dict': WEIGHTS, 'a': Evil(tmp_path / 'made')}))
        with pytest.raises(UserError, match='--trust loads a file of your own'):
            load(path)
        monkeypatch.setenv(TRUST_VARIABLE, '')
        trust_local_files()
        load(path)
        assert (tmp_path / 'made').is_dir()

    def test_home_and_missing_files(self, tmp_path, monkeypatch):
        monkeypatch.setenv('HOME', str(tmp_path))
        (tmp_path / 'a.pth').write_bytes(as_file(WEIGHTS))
        assert load('~/a.pth').keys() == WEIGHTS.keys()
        with pytest.raises(UserError, match=f'checkpoint not found: {tmp_path}/b.pth'):
            load('~/b.pth')

    def test_checkpoint_of_a_run(self, tmp_path):
        optimizer = torch.optim.SGD(Model(None).parameters(), lr=0.1, momentum=0.9)
        content = {'state_dict': WEIGHTS, 'optimizer': optimizer.state_dict()}
        (tmp_path / 'epoch_1.pth').write_bytes(as_file(content))
        assert load(tmp_path / 'epoch_1.pth')['optimizer'] == optimizer.state_dict()

    def test_safetensors(self, tmp_path):
        from safetensors.torch import save_file

        save_file(WEIGHTS, tmp_path / 'a.safetensors')
        model = Model(str(tmp_path / 'a.safetensors'))
        model.init_weights()
        assert torch.equal(model.conv.weight, WEIGHTS['conv.weight'])

    @pytest.mark.parametrize(
        ('key', 'program'), [('blobs', 'detectron'), ('model', 'detectron2')]
    )
    def test_files_to_convert_first(self, tmp_path, key, program):
        path = tmp_path / 'model_final.pkl'
        path.write_bytes(pickle.dumps({key: {'w': np.ones(2, np.float32)}}))
        with pytest.raises(UserError, match=rf'gn-det convert .* --from {program}$'):
            load(path)

    def test_dict_of_another_kind_passes(self, tmp_path):
        """Swin's and DETR's files keep their tensors under `model`."""
        (tmp_path / 'a.pth').write_bytes(as_file({'model': WEIGHTS}))
        assert load(tmp_path / 'a.pth')['model'].keys() == WEIGHTS.keys()

    def test_names_of_a_compiled_model(self, tmp_path):
        wrapped = {f'module._orig_mod.{name}': w for name, w in WEIGHTS.items()}
        (tmp_path / 'a.pth').write_bytes(as_file({'state_dict': wrapped}))
        assert load(tmp_path / 'a.pth')['state_dict'].keys() == WEIGHTS.keys()
        (tmp_path / 'a.pth').write_bytes(as_file(wrapped | WEIGHTS))
        with pytest.raises(UserError, match=r'a\.pth holds names twice'):
            load(tmp_path / 'a.pth')

    def test_no_checkpoint(self, tmp_path):
        (tmp_path / 'a.pth').write_bytes(as_file([1, 2]))
        with pytest.raises(UserError, match='holds a list'):
            load(tmp_path / 'a.pth')


def _rank(rank, meeting, url, hub_folder, result):
    torch.hub.get_dir = lambda: hub_folder
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{meeting}', rank=rank, world_size=2
    )
    try:
        result[rank] = sorted(loader.read(url))
    except (UserError, ZeroDivisionError) as error:
        result[rank] = f'{type(error).__name__}: {error}'


def in_two_ranks(tmp_path, url):
    with multiprocessing.Manager() as manager:
        result = manager.dict()
        meeting = tmp_path / f'meeting-{hashlib.sha256(url.encode()).hexdigest()}'
        processes = [
            FORK.Process(
                target=_rank,
                args=(rank, meeting, url, str(tmp_path / 'hub'), result),
                daemon=True,
            )
            for rank in range(2)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        return dict(result)


def test_first_rank_downloads_and_the_others_wait(server, tmp_path):
    content = as_file(WEIGHTS)
    url = server.add(f'/{hashed_name(content)}', content, pause_s=0.1)
    assert in_two_ranks(tmp_path, url) == dict.fromkeys(range(2), sorted(WEIGHTS))
    assert server.count(f'/{hashed_name(content)}') == 1


def test_failure_of_the_first_rank_reaches_the_others(server, tmp_path):
    result = in_two_ranks(tmp_path, f'{server.address}/gone-00112233.pth')
    assert 'answered 404' in result[0]
    assert result[1] == result[0]
    assert len(server.requests) == 1


def test_defect_in_the_first_rank_does_not_leave_the_others_waiting(
    tmp_path, monkeypatch
):
    def fail(*_, **__):
        raise ZeroDivisionError('a defect')

    monkeypatch.setattr('gn_det.workbench.zoo.fetch.download', fail)
    result = in_two_ranks(tmp_path, 'http://user:geheim@127.0.0.1:9/a.pth')
    assert result[0] == 'ZeroDivisionError: a defect'
    assert result[1] == (
        'UserError: the first process cannot download http://127.0.0.1:9/a.pth: '
        "ZeroDivisionError('a defect')"
    )

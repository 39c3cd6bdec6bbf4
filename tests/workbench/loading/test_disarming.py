"""mmengine and mmdet run nothing out of our files, and delete nothing by them."""

from __future__ import annotations

import pickle
import secrets
from pathlib import Path

import mmengine
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader, Runner
from torch import nn

from gn_det.workbench.errors import UserError
from gn_det.workbench.loading import loader
from gn_det.workbench.loading.files import TRUST_VARIABLE
from tests.workbench.loading.evil import Evil, program


@pytest.fixture(autouse=True)
def untrusted(monkeypatch):
    monkeypatch.delenv(TRUST_VARIABLE, raising=False)
    monkeypatch.setattr(loader, '_run_folder', None)


class Small(BaseModel):
    """One convolution, trained to give zero."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, inputs, mode='tensor'):
        """The mean square of the output as the loss, or the score."""
        found = self.layer(inputs.float()).square().mean()
        return {'loss': found} if mode == 'loss' else [found]


class Scores:
    """An evaluator that gives one score."""

    def __init__(self, score: float) -> None:
        self.score = score

    def evaluate(self, size):
        """The score."""
        return {'score': self.score}

    def process(self, *_, **__):
        """Take no samples."""


def runner(work_dir: Path, epochs: int, **settings) -> Runner:
    data = [dict(inputs=torch.randn(3, 4, 4)) for _ in range(4)]
    loading = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=data,
        collate_fn=dict(type='default_collate'),
    )
    made = Runner(
        model=Small(),
        work_dir=str(work_dir),
        train_dataloader=loading,
        val_dataloader=loading,
        val_evaluator=[],
        val_cfg={},
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        default_hooks=dict(
            checkpoint=dict(
                type='CheckpointHook', interval=1, save_best='score', rule='greater'
            )
        ),
        default_scope='mmengine',
        experiment_name=f'disarming-{secrets.token_hex(4)}',
        cfg=Config(dict(mine=1)),
        **settings,
    )
    # A longer run is better.
    made.val_loop.evaluator = Scores(epochs)
    return made


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A run of one epoch with a best checkpoint."""
    folder = tmp_path_factory.mktemp('runs') / 'first'
    runner(folder, 1).train()
    return folder


def change(source: Path, target: Path, **info) -> dict:
    """A copy of a checkpoint with other values in its message hub."""
    content = torch.load(source, weights_only=False)
    content['message_hub']['runtime_info'].update(info)
    torch.save(content, target)
    return content


class TestConfigInACheckpoint:
    @pytest.fixture
    def evil(self, trained, tmp_path):
        text = program(tmp_path / 'pwned')
        path = tmp_path / 'epoch_1.pth'
        content = change(trained / 'epoch_1.pth', path, cfg=text)
        content['meta'].update(config=text, cfg=text)
        torch.save(content, path)
        return path

    def test_is_not_run_by_a_run_that_goes_on(self, evil, tmp_path):
        going_on = runner(evil.parent, 2, resume=True, load_from=str(evil))
        going_on.train()
        assert not (tmp_path / 'pwned').exists()
        saved = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)
        assert saved['meta']['cfg'] == 'mine = 1\n'
        assert saved['message_hub']['runtime_info']['cfg'] == 'mine = 1\n'

    def test_is_not_run_by_an_inferencer(self, evil, tmp_path):
        # Only now: gn_det supplies operators that it needs.
        from mmdet.apis import DetInferencer, init_detector

        with pytest.raises(ValueError, match='is a program and is not run: give a'):
            DetInferencer(weights=str(evil), device='cpu')
        with pytest.raises(TypeError, match='config must be'):
            init_detector(None, str(evil), device='cpu')
        assert not (tmp_path / 'pwned').exists()

    def test_is_left_as_it_is_in_trusted_files(self, evil, monkeypatch):
        monkeypatch.setenv(TRUST_VARIABLE, '1')
        content = CheckpointLoader.load_checkpoint(str(evil), map_location='cpu')
        assert content['meta']['cfg'].startswith('import os')
        assert content['meta']['config'] == content['meta']['cfg']

    @pytest.mark.parametrize('key', ['meta', 'message_hub'])
    def test_state_that_is_none(self, tmp_path, key):
        path = tmp_path / 'a.pth'
        torch.save({'state_dict': {'w': torch.ones(1)}, key: [1]}, path)
        with pytest.raises(UserError, match=f'holds a list as its {key}'):
            CheckpointLoader.load_checkpoint(str(path))


class TestFilesInAState:
    @pytest.fixture
    def victim(self, tmp_path):
        path = tmp_path / 'elsewhere' / 'best_score_epoch_9.pth'
        path.parent.mkdir()
        path.write_bytes(b'precious')
        return path

    @pytest.mark.parametrize('confined', [True, False])
    @pytest.mark.parametrize('path', ['{victim}', '{folder}/../elsewhere/{name}'])
    def test_of_another_folder_are_not_deleted(
        self, trained, tmp_path, victim, path, confined
    ):
        folder = tmp_path / 'run'
        folder.mkdir()
        named = path.format(victim=victim, folder=folder, name=victim.name)
        source = folder / 'epoch_1.pth'
        change(trained / 'epoch_1.pth', source, best_ckpt=named, last_ckpt=named)
        going_on = runner(folder, 2, resume=True, load_from=str(source))
        if confined:
            loader.confine_to(folder)
        going_on.train()
        assert victim.read_bytes() == b'precious'

    def test_of_a_copied_run_are_its_own(self, trained, tmp_path):
        """The original keeps its best; the copy replaces its own."""
        copy = tmp_path / 'copy'
        copy.mkdir()
        for path in trained.glob('*.pth'):
            (copy / path.name).write_bytes(path.read_bytes())
        source = str(copy / 'epoch_1.pth')
        runner(copy, 2, resume=True, load_from=source).train()
        assert (trained / 'best_score_epoch_1.pth').is_file()
        assert not (copy / 'best_score_epoch_1.pth').exists()
        assert (copy / 'best_score_epoch_2.pth').is_file()

    def test_of_the_run_it_branched_from_are_kept(self, trained, tmp_path):
        source = str(trained / 'epoch_1.pth')
        going_on = runner(tmp_path / 'branch', 2, resume=True, load_from=source)
        loader.confine_to(tmp_path / 'branch')
        going_on.train()
        assert (trained / 'best_score_epoch_1.pth').is_file()
        assert (tmp_path / 'branch' / 'best_score_epoch_2.pth').is_file()

    def test_numbers_to_keep_are_numbers(self, trained, tmp_path):
        path = tmp_path / 'a.pth'
        change(trained / 'epoch_1.pth', path, keep_ckpt_ids=['/../../x'])
        content = CheckpointLoader.load_checkpoint(str(path))
        assert 'keep_ckpt_ids' not in content['message_hub']['runtime_info']

    @pytest.mark.parametrize('name', ['run.py', 'epoch_1.pth', 3, None])
    def test_only_the_best_are_deleted_as_such(self, trained, tmp_path, name):
        path = tmp_path / 'a.pth'
        change(trained / 'epoch_1.pth', path, best_ckpt=name)
        content = CheckpointLoader.load_checkpoint(str(path))
        assert 'best_ckpt' not in content['message_hub']['runtime_info']


class TestPickledData:
    def test_numbers(self, tmp_path):
        (tmp_path / 'a.pkl').write_bytes(pickle.dumps([np.arange(2), torch.ones(1)]))
        found = mmengine.load(tmp_path / 'a.pkl')
        assert found[0].tolist() == [0, 1]

    def test_code_does_not_run(self, tmp_path, monkeypatch):
        path = tmp_path / 'proposals.pkl'
        path.write_bytes(pickle.dumps({'a': Evil(tmp_path / 'made')}))
        with pytest.raises(UserError, match=r'read as data: it asks for posix\.mkdir'):
            mmengine.load(path)
        assert not (tmp_path / 'made').exists()
        monkeypatch.setenv(TRUST_VARIABLE, '1')
        mmengine.load(path)
        assert (tmp_path / 'made').is_dir()


class TestYaml:
    def test_values(self, tmp_path):
        (tmp_path / 'a.yaml').write_text('a: [1, 2.5, x]')
        assert mmengine.load(tmp_path / 'a.yaml') == {'a': [1, 2.5, 'x']}

    def test_code_does_not_run(self, tmp_path, monkeypatch):
        path = tmp_path / 'a.yml'
        made = tmp_path / 'made'
        path.write_text(f'!!python/object/apply:os.mkdir ["{made}"]')
        with pytest.raises(UserError, match=r'read as data: .*os\.mkdir'):
            mmengine.load(path)
        assert not made.exists()
        monkeypatch.setenv(TRUST_VARIABLE, '1')
        mmengine.load(path)
        assert made.is_dir()


class TestReadOnce:
    @pytest.fixture
    def reads(self, monkeypatch):
        found = []
        original = loader.read
        monkeypatch.setattr(
            loader, 'read', lambda name, *a: found.append(name) or original(name, *a)
        )
        return found

    def save(self, path, value=1.0):
        torch.save({'state_dict': {'w': torch.tensor([value])}}, path)
        return str(path)

    def test_what_was_looked_at_is_handed_to_mmengine(self, reads, tmp_path):
        path = self.save(tmp_path / 'a.pth')
        other = self.save(tmp_path / 'b.pth')
        looked_at = loader.peek(path)
        assert loader.peek(path) is looked_at
        # As a pretrained backbone comes in between.
        CheckpointLoader.load_checkpoint(other)
        assert CheckpointLoader.load_checkpoint(path) is looked_at
        assert reads == [path, other]
        assert CheckpointLoader.load_checkpoint(path) is not looked_at

    def test_another_file_of_that_name_is_read(self, reads, tmp_path):
        path = self.save(tmp_path / 'a.pth')
        loader.peek(path)
        (tmp_path / 'a.pth').unlink()
        self.save(tmp_path / 'a.pth', 2.0)
        found = CheckpointLoader.load_checkpoint(path)
        assert found['state_dict']['w'].item() == 2.0

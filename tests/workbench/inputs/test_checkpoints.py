"""Checkpoints: the newest whole one, and only the right model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.checkpoints import (
    check_fit,
    checkpoint_folder,
    load_state_dict,
    prepare_resume,
)
from gn_det.workbench.loading import loader
from gn_det.workbench.loading.integrity import is_whole


def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8))


def save(path, state=None):
    torch.save(dict(state_dict=state or model().state_dict(), meta={}), path)
    return path


def cut_short(path, share=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


class TestWhole:
    def test_saved_file_is(self, tmp_path):
        assert is_whole(save(tmp_path / 'a.pth'))

    @pytest.mark.parametrize('share', [0, 0.3, 0.95])
    def test_file_cut_short_is_not(self, tmp_path, share):
        cut_short(save(tmp_path / 'a.pth'), share)
        assert not is_whole(tmp_path / 'a.pth')

    def test_damaged_weights_are_noticed(self, tmp_path):
        path = save(tmp_path / 'a.pth', dict(w=torch.full((1000,), 1.5)))
        content = bytearray(path.read_bytes())
        place = content.find(torch.full((4,), 1.5).numpy().tobytes())
        content[place] ^= 0xFF
        path.write_bytes(content)
        assert not is_whole(path)

    def test_missing_file_is_not(self, tmp_path):
        assert not is_whole(tmp_path / 'absent.pth')


class TestFit:
    def test_matching_checkpoint_passes(self, tmp_path):
        check_fit(model(), str(save(tmp_path / 'a.pth')))

    def test_prefix_of_a_distributed_model_is_dropped(self, tmp_path):
        state = {f'module.{k}': v for k, v in model().state_dict().items()}
        check_fit(model(), str(save(tmp_path / 'a.pth', state)))

    def test_missing_left_over_and_reshaped_are_named(self, tmp_path):
        state = model().state_dict()
        state['extra.weight'] = state.pop('1.weight')
        state['0.bias'] = torch.zeros(9)
        path = str(save(tmp_path / 'a.pth', state))
        with pytest.raises(UserError) as error:
            check_fit(model(), path)
        text = str(error.value)
        assert path in text
        assert '1 missing (1.weight)' in text
        assert '1 left over (extra.weight)' in text
        assert '0.bias ((9,) in the file, (8,) in the model)' in text
        assert '\n' not in text

    def test_many_names_are_cut(self, tmp_path):
        state = {f'x{i}': torch.zeros(1) for i in range(50)}
        with pytest.raises(UserError, match=r'50 left over \(x0, x1, x2, …\)'):
            check_fit(model(), str(save(tmp_path / 'a.pth', state)))

    def test_fine_tuning_needs_one_tensor_that_fits(self, tmp_path):
        state = model().state_dict()
        part = {'0.weight': state['0.weight'], 'other': torch.zeros(1)}
        check_fit(model(), str(save(tmp_path / 'a.pth', part)), exact=False)
        none = {'0.weight': torch.zeros(1), 'other': torch.zeros(1)}
        with pytest.raises(UserError, match='does not match the model'):
            check_fit(model(), str(save(tmp_path / 'b.pth', none)), exact=False)

    def test_not_found(self, tmp_path):
        with pytest.raises(UserError, match=f'checkpoint not found: {tmp_path}/no.pth'):
            load_state_dict(str(tmp_path / 'no.pth'))

    @pytest.mark.parametrize('content', [b'', b'not a checkpoint', b'\x80\x02.'])
    def test_not_a_checkpoint(self, tmp_path, content):
        path = tmp_path / 'a.pth'
        path.write_bytes(content)
        with pytest.raises(UserError, match='is not a checkpoint') as error:
            load_state_dict(str(path))
        assert '\n' not in str(error.value)

    def test_a_refusal_does_not_advise_to_load_with_full_rights(self, tmp_path):
        path = tmp_path / 'a.pth'
        path.write_text('# A text, not a checkpoint')
        with pytest.raises(UserError) as error:
            load_state_dict(str(path))
        assert 'False' not in str(error.value)
        assert 'no file of torch.save, safetensors or pickled arrays' in str(
            error.value
        )

    def test_no_tensors(self, tmp_path):
        path = tmp_path / 'a.pth'
        torch.save([1, 2], path)
        with pytest.raises(UserError, match='holds a list, not a checkpoint'):
            load_state_dict(str(path))


class Evil:
    def __reduce__(self):
        return (os.mkdir, ('pwned',))


def test_code_in_a_checkpoint_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict=Evil()), tmp_path / 'evil.pth')
    with pytest.raises(UserError, match=r'evil\.pth asks for \S+\.mkdir'):
        load_state_dict('evil.pth')
    assert not (tmp_path / 'pwned').exists()


def save_state(path, **meta):
    meta = dict(epoch=1, iter=3, **meta)
    content = dict(state_dict=model().state_dict(), meta=meta, message_hub={})
    torch.save(content, path)


class TestGoingOn:
    @pytest.fixture
    def cfg(self, tmp_path, monkeypatch):
        monkeypatch.setattr(loader, '_run_folder', None)
        cfg = Config(dict(optim_wrapper=dict(lr=0.2), work_dir=str(tmp_path / 'run')))
        cfg.resume, cfg.load_from = True, str(tmp_path / 'a.pth')
        return cfg

    @pytest.mark.parametrize(
        ('text', 'said'),
        [
            ('optim_wrapper=dict(lr=0.1)', 'optim_wrapper.lr: 0.2, was 0.1'),
            ('optim_wrapper=dict(lr=0.2)\nwork_dir=1', ''),
            ('import os', 'cannot be compared: line 1'),
        ],
    )
    def test_other_settings_are_told(self, cfg, text, said, capsys):
        save_state(cfg.load_from, cfg=text)
        prepare_resume(cfg)
        out = capsys.readouterr().out
        assert (said in out) if said else not out

    @pytest.mark.parametrize(
        ('hook', 'folder'), [({}, 'run'), ({'out_dir': '/x'}, '/x/run')]
    )
    def test_its_files_are_where_it_saves(self, cfg, hook, folder, tmp_path):
        cfg.default_hooks = dict(checkpoint=hook)
        save_state(cfg.load_from)
        prepare_resume(cfg)
        assert loader._run_folder == tmp_path / folder

    def test_weights_alone_are_no_run(self, cfg):
        save(Path(cfg.load_from))
        with pytest.raises(
            UserError, match=r'no state of a run .* --load-from \S+a\.pth'
        ):
            prepare_resume(cfg)


def test_the_folder_of_the_checkpoint_hook():
    cfg = Config(dict(work_dir='work_dirs/gn/'))
    assert str(checkpoint_folder(cfg)) == 'work_dirs/gn'
    cfg.default_hooks = dict(checkpoint=dict(type='CheckpointHook', out_dir='/big'))
    assert str(checkpoint_folder(cfg)) == '/big/gn'

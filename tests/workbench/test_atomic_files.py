"""Files are whole or as they were before."""

from __future__ import annotations

import os

import pytest
from mmengine.fileio import get_file_backend
from mmengine.runner import save_checkpoint
from torch import nn

from gn_det.workbench.atomic_files import (
    AtomicLocalBackend,
    save_checkpoints_atomically,
)
from gn_det.workbench.inputs.checkpoints import is_whole


@pytest.fixture(autouse=True)
def registered():
    save_checkpoints_atomically()


def test_mmengine_saves_through_it(tmp_path):
    assert isinstance(get_file_backend(str(tmp_path)), AtomicLocalBackend)
    path = tmp_path / 'made' / 'epoch_1.pth'
    save_checkpoint(dict(state_dict=nn.Conv2d(3, 8, 3).state_dict()), str(path))
    assert is_whole(path)
    assert [p.name for p in path.parent.iterdir()] == ['epoch_1.pth']


@pytest.mark.parametrize('step', ['fsync', 'replace'])
def test_failure_keeps_the_file_before_it(tmp_path, monkeypatch, step):
    path = tmp_path / 'epoch_1.pth'
    path.write_bytes(b'before')

    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match='No space left'):
        AtomicLocalBackend().put(b'after', path)
    assert path.read_bytes() == b'before'
    assert [p.name for p in tmp_path.iterdir()] == ['epoch_1.pth']

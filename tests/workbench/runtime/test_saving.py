"""mmengine's checkpoints are written whole."""

from __future__ import annotations

from mmengine.fileio import get_file_backend
from mmengine.runner import save_checkpoint
from torch import nn

from gn_det.workbench.loading.integrity import is_whole
from gn_det.workbench.runtime.saving import (
    AtomicLocalBackend,
    save_checkpoints_atomically,
)


def test_mmengine_saves_through_it(tmp_path):
    save_checkpoints_atomically()
    assert isinstance(get_file_backend(str(tmp_path)), AtomicLocalBackend)
    path = tmp_path / 'made' / 'epoch_1.pth'
    save_checkpoint(dict(state_dict=nn.Conv2d(3, 8, 3).state_dict()), str(path))
    assert is_whole(path)
    assert [p.name for p in path.parent.iterdir()] == ['epoch_1.pth']


def test_the_only_checkpoint_goes_when_the_next_is_whole(tmp_path):
    backend = AtomicLocalBackend()
    old, new = tmp_path / 'epoch_1.pth', tmp_path / 'epoch_2.pth'
    backend.put(b'old', old)
    # mmengine asks for this first, and makes a backend for each call.
    AtomicLocalBackend().remove(old)
    assert old.exists()
    AtomicLocalBackend().put(b'new', new)
    assert [p.name for p in tmp_path.iterdir()] == ['epoch_2.pth']
    # The same name: what was written again stays.
    AtomicLocalBackend().remove(new)
    AtomicLocalBackend().put(b'again', new)
    assert new.read_bytes() == b'again'

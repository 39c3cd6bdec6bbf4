"""mmengine's checkpoints are written whole."""

from __future__ import annotations

from mmengine.fileio import get_file_backend
from mmengine.runner import save_checkpoint
from torch import nn

from gn_det.workbench.inputs.checkpoints import is_whole
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

"""Training checkpoints load under `weights_only=True`, and nothing more does."""

from __future__ import annotations

from pickle import UnpicklingError

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import CheckpointLoader

import gn_det
from gn_det.compat import checkpoint_globals
from gn_det.compat.checkpoint_globals import history_buffer_method


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
    assert history_buffer_method(HistoryBuffer, 'mean') is HistoryBuffer.mean
    with pytest.raises(UnpicklingError, match='only the statistics'):
        history_buffer_method(owner, name)


def test_an_empty_history_buffer_loads(tmp_path):
    """Python pickles the memory of an empty array as `bytes()`."""
    path = tmp_path / 'a.pth'
    torch.save({'message_hub': HistoryBuffer()}, path)
    buffer = checkpoint_globals.load(str(path))['message_hub']
    assert len(buffer.data[0]) == 0

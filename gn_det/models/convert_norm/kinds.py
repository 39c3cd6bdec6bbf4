"""Which layers are Batch Norms, by their class or by its name in a config."""

from __future__ import annotations

from typing import Any

from mmengine.registry import MODELS
from torch.nn.modules.batchnorm import _BatchNorm

# Batch Norms that are no `_BatchNorm`: those of mmcv's operators, and the frozen ones
# that torchvision, detectron2 and others each have.
_OF_THEIR_OWN = ('SyncBatchNorm', 'FrozenBatchNorm2d')
# Registered by other packages, which need not be there.
_BY_NAME = ('MMSyncBN', 'NaiveSyncBN')


def is_batch_norm(kind: type) -> bool:
    """Whether a class is a Batch Norm, synchronised and frozen ones included."""
    return issubclass(kind, _BatchNorm) or kind.__name__ in _OF_THEIR_OWN


def names_batch_norm(kind: Any) -> bool:
    """Whether the `type` of a `norm_cfg` is a Batch Norm, as mmcv would build it."""
    cls = MODELS.get(kind) if isinstance(kind, str) else kind
    if isinstance(cls, type):
        return is_batch_norm(cls)
    return isinstance(kind, str) and kind.rpartition('.')[2] in _BY_NAME


def shown(kind: Any) -> str:
    """A `type` as a report names it."""
    return kind.__name__ if isinstance(kind, type) else str(kind)

"""Which layers are Batch Norms, by their class."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

# Batch Norms with code of their own: those of mmcv's operators, the frozen ones that
# torchvision, detectron2 and others each have, and the synchronised ones of detectron2
# and mmdet3d.
_OF_THEIR_OWN = (
    'SyncBatchNorm',
    'FrozenBatchNorm2d',
    'NaiveSyncBatchNorm',
    'NaiveSyncBatchNorm1d',
    'NaiveSyncBatchNorm2d',
)
# Where a `forward` comes from that normalises and does nothing else.
_PLAIN = ('torch.nn.', 'mmcv.', 'mmengine.')


def is_batch_norm(kind: type) -> bool:
    """Whether a class is a Batch Norm, synchronised and frozen ones included."""
    return issubclass(kind, _BatchNorm) or any(
        base.__name__ in _OF_THEIR_OWN for base in kind.__mro__
    )


def is_other_norm(layer: nn.Module | None) -> bool:
    """Whether a layer is called a norm and has no layers in it."""
    name = type(layer).__name__.lower()
    return 'norm' in name and not any(True for _ in layer.children())


def reason_to_keep(kind: type) -> str | None:
    """Why a norm is not replaced; None for a Batch Norm that is nothing else."""
    if not is_batch_norm(kind):
        return 'not a Batch Norm'
    if has_activation(kind):
        return None
    # An activation, for one, which would be lost with the norm.
    return None if _only_normalises(kind) else 'does more than normalise'


def _only_normalises(kind: type) -> bool:
    """Whether the `forward` of a Batch Norm is one that is known."""
    owner = next((base for base in kind.__mro__ if 'forward' in vars(base)), kind)
    return owner.__name__ in _OF_THEIR_OWN or owner.__module__.startswith(_PLAIN)


def has_activation(kind: type) -> bool:
    """Whether it is timm's Batch Norm with an activation, which has a GN beside it."""
    owner = next((base for base in kind.__mro__ if 'forward' in vars(base)), kind)
    return owner.__name__ == 'BatchNormAct2d' and owner.__module__.startswith('timm.')

"""The operation: Group Norm with optional residual addition and ReLU, in one pass."""

from gn_det.ops.dispatch import implementation, unsupported_reason
from gn_det.ops.functional import group_norm
from gn_det.ops.recompute import recompute_activations, recomputed

__all__ = [
    'group_norm',
    'implementation',
    'recompute_activations',
    'recomputed',
    'unsupported_reason',
]

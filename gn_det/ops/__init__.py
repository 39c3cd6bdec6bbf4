"""The operation: Group Norm with optional residual addition and ReLU, in one pass."""

from gn_det.ops.dispatch import implementation, unsupported_reason
from gn_det.ops.functional import group_norm

__all__ = ['group_norm', 'implementation', 'unsupported_reason']

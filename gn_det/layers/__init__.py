"""The op as `nn.Module`s, which need nothing but torch."""

from gn_det.layers.group_norm import FUSED_NORMS, FusedGroupNorm, GroupNorm

__all__ = ['FUSED_NORMS', 'FusedGroupNorm', 'GroupNorm']

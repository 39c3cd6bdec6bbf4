"""The op's face to OpenMMLab: `nn.Module`s in mmengine's registry."""

from gn_det.layers.fused_group_norm import FusedGroupNorm

__all__ = ['FusedGroupNorm']

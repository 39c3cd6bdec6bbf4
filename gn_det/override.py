"""Opt-in: every `type='GN'` of any OpenMMLab model becomes the project's layer.

Use it as `custom_imports = dict(imports=['gn_det.override'])`. It replaces the
entry `GN` of mmengine's root registry, which mmcv fills and every child registry
(mmdet, mmseg, mmpretrain, …) falls back to, so heads that hard-code `type='GN'`
(FCOS, ATSS, SOLO, …) are reached too. Models built before the import keep the layer
they have.
"""

# mmcv registers `GN` when it is imported; were it to come second, it would find the
# name taken and fail.
import mmcv.cnn  # noqa: F401
from mmengine.registry import MODELS

from gn_det.layers import FusedGroupNorm

MODELS.register_module(name='GN', module=FusedGroupNorm, force=True)

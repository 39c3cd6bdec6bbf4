"""Group Normalization for detection: a plugin and config zoo for MMDetection.

Importing the package registers the norm layer `FusedGN` and the builder
`GroupNormModel` in mmengine's root registry and supplies mmcv's operators where none
are compiled (`gn_det.compat`). It imports neither mmcv nor mmdet, changes nothing of
the host libraries and needs no GPU, so it is safe in any config:
`custom_imports = dict(imports=['gn_det'])`.
Without mmengine it is the op, the layers, `convert_norm` and `fuse`, for any PyTorch
model. What concerns runs and weights is in `gn_det.workbench`.
"""

from importlib.util import find_spec

from gn_det.conversion import convert_norm
from gn_det.fusion import fuse, unfuse
from gn_det.layers import FusedGroupNorm
from gn_det.version import __version__

if find_spec('mmengine') is not None:
    from mmengine.registry import MODELS

    from gn_det import compat
    from gn_det.conversion.builder import group_norm_model

    compat.install()
    MODELS.register_module('FusedGN', module=FusedGroupNorm)
    MODELS.register_module('GroupNormModel', module=group_norm_model)

__all__ = ['FusedGroupNorm', '__version__', 'convert_norm', 'fuse', 'unfuse']

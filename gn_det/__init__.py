"""Group Normalization for detection: a plugin and config zoo for MMDetection.

Importing the package registers the norm layer `FusedGN` in mmengine's root
registry and prepares the host libraries as they are installed (`gn_det.compat`).
It imports neither mmcv nor mmdet and needs no GPU, so it is safe in any config:
`custom_imports = dict(imports=['gn_det'])`.
"""

from gn_det import compat
from gn_det.version import __version__

compat.install()

from gn_det.layers import FusedGroupNorm  # noqa: E402  (compat comes first)

__all__ = ['FusedGroupNorm', '__version__']

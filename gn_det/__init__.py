"""Group Normalization for detection: a plugin and config zoo for MMDetection.

Importing the package registers the norm layer `FusedGN` in mmengine's root registry and
supplies mmcv's operators where none are compiled (`gn_det.compat`). It imports neither
mmcv nor mmdet, changes nothing of the host libraries and needs no GPU, so it is safe in
any config: `custom_imports = dict(imports=['gn_det'])`. What concerns runs and weights
is in `gn_det.workbench`.
"""

from gn_det import compat
from gn_det.version import __version__

compat.install()

# After compat:
from gn_det.fusion import fuse, unfuse  # noqa: E402
from gn_det.layers import FusedGroupNorm  # noqa: E402

__all__ = ['FusedGroupNorm', '__version__', 'convert_norm', 'fuse', 'unfuse']


def __getattr__(name: str) -> object:
    # It imports mmdet, which importing this package does not.
    if name == 'convert_norm':
        from gn_det.models.convert_norm import convert_norm

        return convert_norm
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

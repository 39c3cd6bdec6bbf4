"""Group Normalization for detection: a plugin and config zoo for MMDetection.

Importing the package registers the norm layer `FusedGN` in mmengine's root registry and
supplies mmcv's operators where none are compiled (`gn_det.compat`). It imports neither
mmcv nor mmdet, changes nothing of the host libraries and needs no GPU, so it is safe in
any config: `custom_imports = dict(imports=['gn_det'])`. Without mmengine it is the op,
the layers and `fuse`, for any PyTorch model. What concerns runs and weights is in
`gn_det.workbench`.
"""

from importlib.util import find_spec

from gn_det.fusion import fuse, unfuse
from gn_det.layers import FusedGroupNorm
from gn_det.version import __version__

if find_spec('mmengine') is not None:
    from mmengine.registry import MODELS

    from gn_det import compat

    compat.install()
    MODELS.register_module('FusedGN', module=FusedGroupNorm)

__all__ = ['FusedGroupNorm', '__version__', 'convert_norm', 'fuse', 'unfuse']


def __getattr__(name: str) -> object:
    # It imports mmdet, which importing this package does not.
    if name == 'convert_norm':
        try:
            from gn_det.models.convert_norm import convert_norm
        except ModuleNotFoundError as error:
            raise ImportError(
                f'gn_det.convert_norm needs MMDetection, but {error}; '
                "pip install 'gn-detection[onedl]' installs it"
            ) from error
        return convert_norm
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

"""The host libraries as they are installed: what differs between them is met here.

`install()` is called once by `import gn_det`. Each module stands alone and names the
versions it is for.
"""

from gn_det.compat import checkpoint_globals, mmcv_ext, package_scope

__all__ = ['install']


def install() -> None:
    """Prepare mmengine, mmcv and torch; calling it again changes nothing."""
    mmcv_ext.install()
    checkpoint_globals.install()
    package_scope.install()

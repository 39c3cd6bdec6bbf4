"""The host libraries as they are installed: what differs between them is met here.

`install()` is called once by `import gn_det`. Each module stands alone and names the
versions it is for.
"""

from gn_det.compat import mmcv_ext, package_scope

__all__ = ['install']


def install() -> None:
    """Prepare mmengine and mmcv; calling it again changes nothing."""
    mmcv_ext.install()
    package_scope.install()

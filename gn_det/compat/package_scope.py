"""`gn_det::…` in configs, in `mmengine.hub` and in inferencers (mmengine 0.10).

mmengine finds configs of other packages (`_base_ = 'gn_det::…'`, `get_config`, models
by name) only for the packages of a fixed table that has no way to register one.
"""

from __future__ import annotations

from mmengine.config.utils import MODULE2PACKAGE


def install() -> None:
    """Enter this package into mmengine's table.

    The table's value is the name of a distribution, whose folder mmengine looks for
    among the installed files; an editable install has none there (0.10.7). For the name
    of a module it asks the import system instead, which knows every kind of install.
    """
    MODULE2PACKAGE['gn_det'] = 'gn_det.version'

"""What `mmengine.hub.get_model('gn_det::…')` imports from any package, by this name."""

from __future__ import annotations

from mmdet.utils import register_all_modules as register_mmdet

import gn_det.models
import gn_det.workbench.evaluation  # noqa: F401


def register_all_modules(init_default_scope: bool = False) -> None:
    """Register what a config of the zoo is built from: mmdet's modules and ours.

    Args:
        init_default_scope: whether names are looked up as mmdet's from now on. Unlike
            in mmdet not by default: `get_model` has a scope of its own when it calls.
    """
    register_mmdet(init_default_scope=init_default_scope)

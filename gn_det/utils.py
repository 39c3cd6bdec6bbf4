"""What `mmengine.hub.get_model('gn_det::…')` imports from any package, by this name."""

from __future__ import annotations

from mmdet.utils import register_all_modules as register_mmdet

import gn_det.evaluation
import gn_det.models  # noqa: F401


def register_all_modules() -> None:
    """Register what a config of the zoo is built from: mmdet's modules and ours."""
    register_mmdet(init_default_scope=False)

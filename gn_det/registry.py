"""The scope `gn_det`: all that mmdet has registered, with this package imported.

mmengine looks for this module where `gn_det` is the scope, as in
`DetInferencer(model='mask-rcnn_r50_fpn_gn-all_2x_coco', scope='gn_det')`. A name is
looked up in mmdet's registry next and in mmengine's, where our modules are, last.
"""

from __future__ import annotations

from mmdet import registry as mmdet_registry
from mmengine.registry import Registry

REGISTRIES = tuple(
    Registry(
        parent.name,
        parent=parent,
        scope='gn_det',
        locations=['gn_det.models', 'gn_det.workbench.evaluation'],
    )
    for parent in vars(mmdet_registry).values()
    if isinstance(parent, Registry)
)

"""The parts of Detectron (2018) that mmdet computes differently, as its weights need.

A published Detectron detector gives its published AP only with the box arithmetic it
was trained with: a box [x1, y1, x2, y2] is x2 − x1 + 1 pixels wide there. These parts
hold that arithmetic, each in the place mmdet has for it; `configs/detectron/` puts them
together. Source of every formula: facebookresearch/Detectron, `detectron/utils`,
`detectron/modeling` and `detectron/core/test.py`.
"""

from gn_det.models.legacy.anchors import DetectronAnchorGenerator
from gn_det.models.legacy.bbox_head import DetectronBBoxHead
from gn_det.models.legacy.box_coder import DetectronBBoxCoder
from gn_det.models.legacy.mask_head import DetectronMaskHead
from gn_det.models.legacy.roi_extractor import DetectronRoIExtractor
from gn_det.models.legacy.roi_head import DetectronRoIHead
from gn_det.models.legacy.rpn_head import DetectronRPNHead
from gn_det.models.legacy.targets import DetectronGroundTruth

__all__ = [
    'DetectronAnchorGenerator',
    'DetectronBBoxCoder',
    'DetectronBBoxHead',
    'DetectronGroundTruth',
    'DetectronMaskHead',
    'DetectronRPNHead',
    'DetectronRoIExtractor',
    'DetectronRoIHead',
]

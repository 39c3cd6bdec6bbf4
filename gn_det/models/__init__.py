"""Detectors whose Group Norms are fused as they are built, and Detectron's own parts.

Importing it registers both; it needs mmdet.
"""

from gn_det.models import legacy
from gn_det.models.detectors import (
    FusedCascadeRCNN,
    FusedDetector,
    FusedFasterRCNN,
    FusedMaskRCNN,
)

__all__ = [
    'FusedCascadeRCNN',
    'FusedDetector',
    'FusedFasterRCNN',
    'FusedMaskRCNN',
    'legacy',
]

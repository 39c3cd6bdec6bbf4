"""COCO files: what every tool checks of annotations and results, in one place."""

from gn_det.workbench.inputs.annotations.check import check_annotations
from gn_det.workbench.inputs.annotations.classes import check_classes
from gn_det.workbench.inputs.annotations.reading import (
    hand_on,
    read_json,
    share_with_mmdet,
)
from gn_det.workbench.inputs.annotations.results import (
    check_results,
    kinds_of,
    read_results,
)

__all__ = [
    'check_annotations',
    'check_classes',
    'check_results',
    'hand_on',
    'kinds_of',
    'read_json',
    'read_results',
    'share_with_mmdet',
]

"""Detection in images and videos: load a detector, detect, paint, write COCO JSON."""

from gn_det.workbench.inference.demo import Summary, check_places, run_demo
from gn_det.workbench.inference.detector import Detections, Detector, load_detector

__all__ = [
    'Detections',
    'Detector',
    'Summary',
    'check_places',
    'load_detector',
    'run_demo',
]

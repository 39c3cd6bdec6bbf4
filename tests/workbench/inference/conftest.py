"""A detector for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from gn_det.workbench.inference import Detector, load_detector
from tests.running import CONFIG, REPOSITORY
from tests.workbench.inference.weights import checkpoint

__all__ = ['checkpoint']


@pytest.fixture(scope='session')
def detector(checkpoint: Path) -> Detector:
    options = {'model.test_cfg.rcnn.max_per_img': 8}
    return load_detector(REPOSITORY / CONFIG, checkpoint, 'cpu', options)

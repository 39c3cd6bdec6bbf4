"""The compiled kernels on the maps of the detector, as large as they are."""

import os

import pytest

from benchmarks.shapes import SHAPES
from tests.ops.cases import LAYOUTS
from tests.ptx.cases import Combination, check_real

pytestmark = pytest.mark.skipif(
    not os.environ.get('GN_DET_REAL_SHAPES'),
    reason='takes an hour: asked for by GN_DET_REAL_SHAPES=1',
)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('dtype', ['bf16', 'fp32'])
@pytest.mark.parametrize('entry', SHAPES, ids=lambda shape: shape.name)
def test_detector_shapes(compiling, entry, dtype, layout):
    shape = (entry.N, entry.C, entry.H, entry.W)
    compiling(
        check_real,
        Combination(90, True, dtype, layout, 'on-chip', entry.kind, shape, entry.G),
    )

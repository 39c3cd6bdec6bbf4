"""Broken code is noticed: faults planted in the PTX of every kernel."""

import pytest

from tests.ops.cases import LAYOUTS
from tests.ptx.cases import Combination, unnoticed
from tests.ptx.faults import FAULTS, Plant

# All threads of this kernel hold the one sum that it stores: each of them may.
HARMLESS = Plant('gn_stats_partial_kernel', 'store without its predicate')


@pytest.mark.parametrize('fault', FAULTS)
@pytest.mark.parametrize('regime', ['on-chip', 'steps'])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_planted_faults_are_noticed(compiling, layout, regime, fault):
    # In fp32, whose bound is the tightest; tiles with an end of their own.
    combination = Combination(
        90, True, 'fp32', layout, regime, 'residual_silu', (2, 12, 12, 21), 3
    )
    planted, missed = compiling(unnoticed, combination, fault)
    assert planted
    assert set(missed) <= {HARMLESS}

"""The compiled kernels compute what the op promises, on any GPU and in any order."""

import pytest

from tests.ptx.cases import check, combinations


@pytest.mark.parametrize('combination', combinations(), ids=str)
def test_accurate_in_every_order(compiling, combination):
    kernels = compiling(check, combination)
    on_chip = {'gn_fwd', 'gn_bwd'}
    split = {'gn_stats_partial', 'gn_apply', 'gn_bwd_partial', 'gn_bwd_dx'}
    expected = on_chip if combination.regime == 'on-chip' else split
    suffix = '_kernel' if combination.layout == 'nchw' else '_nhwc_kernel'
    expected = {name + suffix for name in expected}
    if combination.regime == 'on-chip' and (combination.weight or combination.bias):
        expected.add('gn_bwd_dwdb_kernel')
    assert set(kernels) == expected

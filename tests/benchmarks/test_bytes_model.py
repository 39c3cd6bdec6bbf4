"""The byte model and the network totals against figures computed by hand."""

import pytest

from benchmarks.bytes_model import (
    gbps,
    moved_bytes,
    network_elements,
    network_floor_ms,
    network_layers,
    units,
)
from benchmarks.cases import network_cases
from benchmarks.timing import Quantiles, cold_sets
from benchmarks.totals import network_totals


@pytest.mark.parametrize(
    ('kind', 'itemsize', 'forward', 'backward'),
    [
        ('plain', 2, 2, 3),
        ('relu', 2, 2, 3),
        ('relu', 4, 2, 3),
        ('residual_relu', 2, 3, 4 + 1 / 16),
        ('residual_relu', 4, 3, 4 + 1 / 32),
    ],
)
def test_units(kind, itemsize, forward, backward):
    assert units('fwd', kind, itemsize) == forward
    assert units('bwd', kind, itemsize) == backward
    assert units('fwd_bwd', kind, itemsize) == forward + backward


def test_stem_in_bf16():
    elements = 2 * 64 * 400 * 672
    assert elements == 34_406_400
    assert moved_bytes('fwd', 'relu', elements, 2) == 137_625_600
    assert moved_bytes('bwd', 'relu', elements, 2) == 206_438_400
    # 137.6 MB in 32 µs is 4.3 TB/s.
    assert gbps(137_625_600, 0.032) == pytest.approx(4300, rel=1e-3)


def test_mask_of_a_bit_per_element():
    # 1000 bf16 elements: x, dy, dx, dresidual of 2000 bytes and 1000 bits.
    assert moved_bytes('bwd', 'residual_relu', 1000, 2) == 8125


@pytest.mark.parametrize(
    ('model', 'layers', 'millions', 'forward_ms', 'backward_ms'),
    [('r50', 69, 670.5, 0.62, 0.94), ('r101', 120, 889.8, 0.83, 1.24)],
)
def test_networks(model, layers, millions, forward_ms, backward_ms):
    assert network_layers(model) == layers
    assert network_elements(model) / 1e6 == pytest.approx(millions, abs=0.05)
    floor = network_floor_ms(model, 'fwd', 2, 4.3e12)
    assert floor == pytest.approx(forward_ms, abs=0.005)
    floor = network_floor_ms(model, 'bwd', 2, 4.3e12)
    assert floor == pytest.approx(backward_ms, abs=0.005)


def test_cases_cover_the_networks_once():
    cases = network_cases('bf16', 'nhwc')
    assert sum(case.count_r50 for case in cases) == 69
    assert sum(case.count_r101 for case in cases) == 120
    elements = sum(case.count_r50 * case.elements for case in cases)
    assert elements == network_elements('r50')
    assert len({(c.N, c.C, c.H, c.W, c.kind) for c in cases}) == len(cases)


def test_asked_fusions_go_over_every_map():
    own = network_cases('bf16', 'nhwc')
    maps = {(case.N, case.C, case.H, case.W) for case in own}
    cases = network_cases('bf16', 'nhwc', kinds=('plain', 'residual_relu'))
    assert len(cases) == 2 * len(maps)
    # Counts stay with what the network runs: 12 plain norms and 16 at block ends.
    assert sum(case.count_r50 for case in cases) == 28


def test_totals_weigh_each_case_by_its_count():
    rows = [
        {
            **dict(dtype='bf16', layout='nhwc', dir='fwd', cache='cold', impl='gn_det'),
            **dict(N=case.N, C=case.C, H=case.H, W=case.W),
            **dict(relu=int(case.relu), residual=int(case.residual)),
            **dict(count_r50=case.count_r50, count_r101=case.count_r101),
            'ms_p50': 2 * case.elements / 1e9,
            'frac_of_copy': 0.25,
        }
        for case in network_cases('bf16', 'nhwc')
    ]
    (total,) = network_totals(rows, 'r50')
    assert total.complete
    assert total.layers == 69
    assert total.ms == pytest.approx(2 * 0.6705, rel=1e-3)
    assert total.frac_of_copy == pytest.approx(0.25)
    # Two units of two bytes, and one more unit where a residual is read.
    residual = sum(
        case.count_r50 * case.elements
        for case in network_cases('bf16', 'nhwc')
        if case.residual
    )
    nbytes = 4 * network_elements('r50') + 2 * residual
    assert total.gbps == pytest.approx(gbps(nbytes, total.ms))
    (partial,) = network_totals(rows[1:], 'r50')
    assert not partial.complete


def test_quantiles():
    found = Quantiles.of(range(101))
    assert (found.p50, found.p20, found.p80) == (50, 20, 80)


def test_rotation_leaves_the_cache_cold():
    l2 = 60 * 2**20
    for nbytes in (10**6, 10**7, 10**8, 10**9):
        between = (cold_sets(nbytes, l2) - 1) * nbytes
        assert between >= 3 * l2 or nbytes >= 3 * l2

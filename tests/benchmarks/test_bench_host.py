"""The host benchmark in few samples, and what its stub leaves in place."""

import pytest
import torch

from benchmarks import bench_host
from benchmarks.bench_host import Chain, gn_det_layer
from benchmarks.host_stub import launches_stubbed, regime
from benchmarks.results import HOST_COLUMNS, read_rows
from gn_det.ops import triton_launch


def test_a_short_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert bench_host.main(['--repeats', '3', '--out', str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    assert path.name.startswith('host-cost_up-to-launch_cpu_pt')
    rows = read_rows(path)
    assert tuple(rows[0]) == HOST_COLUMNS
    # Two regimes, two layouts, three fusions, two directions, two implementations.
    assert len(rows) == 48
    for row in rows:
        assert float(row['us_p50']) > 0
        if row['impl'] == 'torch':
            assert float(row['ratio_to_torch']) == 1
    assert 'gn_det us' in capsys.readouterr().out


def test_a_networks_host_time_is_weighted_by_its_fusions():
    shares = {'plain': 1000, 'relu': 2000, 'residual_relu': 3000}
    rows = [
        {
            **dict(regime='split', layout='nhwc', dir='fwd', impl=impl),
            **dict(relu=int(kind != 'plain'), residual=int(kind == 'residual_relu')),
            'us_p50': us * times,
        }
        for kind, us in shares.items()
        for impl, times in (('gn_det', 3), ('torch', 2))
    ]
    # 12 plain, 41 with ReLU, 16 with residual and ReLU.
    text = bench_host.network_table(rows)
    assert 'gn_det 426.00 ms, torch 284.00 ms, ratio 1.50' in text


@pytest.mark.parametrize(
    ('name', 'kind', 'forward', 'backward'),
    [('on-chip', 'plain', 1, 2), ('split', 'residual_relu', 2, 2)],
)
def test_every_launch_is_reached_and_none_runs(
    monkeypatch, name, kind, forward, backward
):
    counted = []
    call = triton_launch.Launch.__call__

    def counting(self, *args):
        counted.append(self.kernel)
        return call(self, *args)

    monkeypatch.setattr(triton_launch.Launch, '__call__', counting)
    with launches_stubbed(), regime(name):
        Chain(gn_det_layer(kind != 'plain'), kind, 'nhwc', 'cpu')()
    assert len(counted) == bench_host.CHAIN * (forward + backward)


def test_the_stub_is_gone_afterwards():
    initialise = triton_launch.Launch.__init__
    interpreted, limits = triton_launch.INTERPRETED, triton_launch.LIMITS
    with launches_stubbed(), regime('split'):
        assert limits is not triton_launch.LIMITS
    assert triton_launch.Launch.__init__ is initialise
    assert triton_launch.INTERPRETED is interpreted
    assert triton_launch.LIMITS is limits
    assert triton_launch._cached_fwd.cache_info().currsize == 0

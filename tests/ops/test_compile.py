"""The kernels of the detector's real shapes compile, without spills, for each GPU."""

import json
import os
import subprocess
import sys

import pytest

TARGETS = [(90, 'bf16'), (90, 'fp32'), (80, 'bf16'), (100, 'bf16')]
MAP_STORES = ('gn_fwd', 'gn_apply', 'gn_bwd_kernel', 'gn_bwd_nhwc', 'gn_bwd_dx')


@pytest.fixture(scope='module', params=TARGETS, ids='sm_{0[0]}-{0[1]}'.format)
def compiled(request, repository):
    """Facts about every distinct kernel, from a process without the interpreter."""
    capability, dtype = request.param
    environment = {k: v for k, v in os.environ.items() if k != 'TRITON_INTERPRET'}
    done = subprocess.run(
        [sys.executable, '-m', 'tests.ops.compile_kernels', str(capability), dtype],
        cwd=repository,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dtype, [json.loads(line) for line in done.stdout.splitlines()]


def test_every_kernel_compiles_without_spills(compiled):
    _, results = compiled
    kernels = {result['kernel'] for result in results}
    assert len(kernels) == 13
    for result in results:
        assert result['stack'] == result['local'] == 0, result


def test_maps_move_in_16_bytes_where_alignment_allows(compiled):
    dtype, results = compiled
    itemsize = 4 if dtype == 'fp32' else 2
    aligned = 0
    for result in results:
        if result['kernel'] == 'gn_bwd_dwdb_kernel':
            continue
        flat = result['kernel'] == 'gn_fwd_kernel'
        unit = result['L'] & -result['L'] if flat else result['VEC']
        if not result['channels_last'] and unit * itemsize < 16:
            continue
        aligned += 1
        assert result['loads'].get('v4.b32'), result
        if result['kernel'].startswith(MAP_STORES):
            assert result['stores'].get('v4.b32'), result
        # A 16-bit access is an element of a map that moves alone.
        assert 'b16' not in result['loads'], result
        assert 'b16' not in result['stores'], result
    assert aligned > len(results) / 2

"""The speed benchmark on a CPU: gate, rows, file, and what it says without CUDA."""

import re

import pytest
import torch

from benchmarks import bench_group_norm, limits, providers
from benchmarks.bench_group_norm import CaseBenchmark, table, totals_table
from benchmarks.cases import Case, make_inputs
from benchmarks.gate import Reference, check
from benchmarks.results import (
    SPEED_COLUMNS,
    Environment,
    read_rows,
    speed_name,
    write_rows,
)

# Where there is no GPU the kernels are interpreted.
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'


def small(kind='residual_relu', dtype='fp32', layout='nhwc') -> Case:
    return Case(2, 8, 5, 3, 4, kind, dtype, layout, count_r50=1, count_r101=2)


@pytest.fixture
def benchmark(timer, environment):
    def make(case: Case, directions=('fwd', 'bwd', 'fwd_bwd')) -> CaseBenchmark:
        return CaseBenchmark(
            case,
            timer,
            environment,
            directions=directions,
            device=DEVICE,
            l2_bytes=1,
            peak=lambda run: (run(), 1.0)[1],
        )

    return make


@pytest.mark.parametrize('kind', ['plain', 'relu', 'residual_relu'])
def test_a_case_end_to_end(benchmark, kind):
    made = benchmark(small(kind))
    made.run(['gn_det', 'torch'])
    assert made.failures == []
    measured = {(row['impl'], row['dir'], row['cache']) for row in made.rows}
    assert len(measured) == len(made.rows) == 4 * 3 * 2
    for row in made.rows:
        assert tuple(row) == SPEED_COLUMNS
        assert row['frac_of_copy'] == 1.0
    assert 'gn_det' in table(made.rows, ('fwd', 'bwd'))
    totals = totals_table(made.rows, ['r50'])
    assert 'incomplete: 1 of 69 norms' in totals
    assert ('GN + ReLU, 1 norms: 1.00 x torch' in totals) is (kind == 'relu')


def test_a_wrong_provider_gets_no_time(benchmark, monkeypatch):
    def make_wrong(case):
        def forward(inputs):
            y = providers.PROVIDERS['torch'](case)(inputs)
            return y * torch.where(torch.arange(3, device=DEVICE) == 2, 1.1, 1.0)

        return forward

    monkeypatch.setitem(providers.PROVIDERS, 'gn_det', make_wrong)
    made = benchmark(small(), directions=('fwd',))
    made.run(['gn_det', 'torch'])
    assert {row['impl'] for row in made.rows} == {'copy', 'three_stream', 'torch'}
    (failure,) = made.failures
    assert failure.startswith('gn_det is refused: y is off by')


@pytest.mark.parametrize('leaf', range(4))
def test_a_wrong_gradient_is_refused(monkeypatch, leaf):
    case = small()
    inputs = make_inputs(case, 'cpu')
    forward = providers.PROVIDERS['torch'](case)
    assert check(Reference(case, inputs), forward, inputs) == []

    def spoiled(*args, **kwargs):
        found = list(providers.gradients(*args, **kwargs))
        found[leaf] = found[leaf].clone()
        found[leaf].view(-1)[1] += 1
        return found

    case = small(layout='nchw')
    inputs = make_inputs(case, 'cpu')
    forward = providers.PROVIDERS['torch'](case)
    monkeypatch.setattr('benchmarks.gate.gradients', spoiled)
    (wrong,) = check(Reference(case, inputs), forward, inputs)
    assert wrong.startswith(('dx', 'dweight', 'dbias', 'dresidual')[leaf])


def test_not_a_number_and_a_wrong_dtype_are_refused():
    case = small('plain')
    inputs = make_inputs(case, 'cpu')
    reference = Reference(case, inputs)

    def with_nan(inputs):
        y = providers.PROVIDERS['torch'](case)(inputs)
        return y.masked_fill(torch.arange(3) == 1, float('nan'))

    assert 'not finite' in check(reference, with_nan, inputs)[0]
    in_bf16 = check(reference, lambda i: i.x.bfloat16(), inputs)
    assert in_bf16 == ['y is torch.bfloat16, not torch.float32']


@pytest.mark.parametrize('dtype', ['bf16', 'fp16'])
@pytest.mark.parametrize('name', ['torch', 'torch_autocast'])
def test_the_gate_lets_16_bit_torch_pass(name, dtype):
    case = Case(2, 32, 21, 13, 8, 'residual_relu', dtype, 'nhwc')
    inputs = make_inputs(case, 'cpu')
    forward = providers.PROVIDERS[name](case)
    own = providers.inputs_for(name, case, inputs)
    assert check(Reference(case, inputs), forward, own) == []


def test_a_provider_that_raises_costs_the_others_nothing(benchmark, monkeypatch):
    def broken(case):
        raise RuntimeError('no such kernel\nand a long trace')

    monkeypatch.setitem(providers.PROVIDERS, 'torch_compile', broken)
    made = benchmark(small(), directions=('fwd',))
    made.run(['torch_compile', 'torch'])
    assert made.failures == ['torch_compile: RuntimeError: no such kernel']
    assert 'torch' in {row['impl'] for row in made.rows}


def test_autocast_applies_to_16_bits_only(benchmark):
    made = benchmark(small(), directions=('fwd',))
    made.run(['torch_autocast'])
    assert {row['impl'] for row in made.rows} == set(limits.LIMITS)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_the_limits_move_what_they_claim(dtype):
    for name, streams in (('copy', 2), ('three_stream', 3)):
        entry = limits.buffers(name, 9999, dtype, DEVICE)
        total = sum(tensor.nbytes for tensor in entry)
        assert len(entry) == streams
        assert 9999 <= total < 9999 + 16 * streams
        assert limits.wrong(name, entry) is not None
        limits.run(name, [[entry]])
        assert limits.wrong(name, entry) is None


def test_file_name_and_columns(tmp_path, environment, benchmark):
    name = speed_name('bf16', 'nhwc', environment.tag)
    assert name == 'group-norm_bf16_nhwc_h200_pt215_tr39.csv'
    made = benchmark(small('plain'), directions=('fwd',))
    made.run(['torch'])
    write_rows(tmp_path / 'results' / name, SPEED_COLUMNS, made.rows)
    rows = read_rows(tmp_path / 'results' / name)
    assert [row['impl'] for row in rows[-2:]] == ['torch', 'torch']
    assert tuple(rows[0]) == SPEED_COLUMNS
    assert rows[0]['gpu'] == 'NVIDIA H200'
    assert list((tmp_path / 'results').iterdir()) == [tmp_path / 'results' / name]


def test_a_partial_run_does_not_take_a_whole_ones_name():
    def name(*argv):
        return bench_group_norm.suffix(bench_group_norm.parse_args(argv))

    assert name() == name('--dtype', 'bf16', '--layout', 'nhwc') == ''
    assert name('--quick', '--provider', 'torch') == '_quick'
    assert name('--provider', 'torch') == name('--pass', 'fwd') == '_partial'
    assert name('--model', 'r50') == '_partial'
    assert name('--fusion', 'relu') == '_fusion-relu'


def test_environment_of_this_machine():
    here = Environment.here()
    assert re.fullmatch(r'\d{4}-\d\d-\d\d', here.date)
    assert re.fullmatch(r'[a-z0-9-]+_pt\d+_tr\d+', here.tag)
    assert here.commit


def test_without_cuda_one_line_and_exit_code_2(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert bench_group_norm.main(['--quick']) == 2
    captured = capsys.readouterr()
    assert captured.out == ''
    assert captured.err.count('\n') == 1
    assert 'needs a CUDA device' in captured.err


def test_a_failure_makes_the_exit_code_1(monkeypatch, environment, tmp_path, timer):
    """Main, on one small map and without a clock: torch is right, gn_det is not."""

    class Small(CaseBenchmark):
        def __init__(self, case, *args, **kwargs):
            kwargs.update(device=DEVICE, l2_bytes=1, peak=lambda run: 0.0)
            super().__init__(small(), *args, **kwargs)

    def identity(case):
        return lambda inputs: inputs.x * 1

    monkeypatch.setattr(bench_group_norm, 'CaseBenchmark', Small)
    monkeypatch.setattr(bench_group_norm, 'GraphTimer', lambda *args: timer)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'empty_cache', lambda: None)
    monkeypatch.setattr(torch.cuda, 'current_device', lambda: 0)
    monkeypatch.setattr(
        torch.cuda,
        'get_device_properties',
        lambda device: type('Properties', (), {'L2_cache_size': 1}),
    )
    monkeypatch.setattr(torch.cuda, 'Stream', lambda: None)
    monkeypatch.setattr(Environment, 'here', lambda: environment)
    argv = ['--quick', '--dtype', 'fp32', '--layout', 'nhwc', '--pass', 'fwd']
    argv += ['--out', str(tmp_path), '--provider']
    assert bench_group_norm.main([*argv, 'torch']) == 0
    monkeypatch.setitem(providers.PROVIDERS, 'gn_det', identity)
    assert bench_group_norm.main([*argv, 'torch', 'gn_det']) == 1
    rows = read_rows(tmp_path / 'group-norm_fp32_nhwc_h200_pt215_tr39_quick.csv')
    assert {row['impl'] for row in rows} == {'copy', 'three_stream', 'torch'}


@pytest.mark.gpu
def test_quick_run_on_a_gpu(tmp_path):
    argv = ['--quick', '--dtype', 'bf16', '--layout', 'nhwc', '--out', str(tmp_path)]
    assert bench_group_norm.main([*argv, '--provider', 'gn_det', 'torch']) == 0
    (path,) = tmp_path.glob('*.csv')
    times = [float(row['ms_p50']) for row in read_rows(path)]
    assert times
    assert all(0 < ms < 100 for ms in times)

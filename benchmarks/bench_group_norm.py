"""Speed of Group Norm (+ residual) (+ ReLU) at every norm of Mask R-CNN FPN.

    python benchmarks/bench_group_norm.py --dtype bf16 --layout nhwc

Each implementation is first held against float64; one that is wrong gets no time, and
the exit code is 1. Then its calls are timed, with a cold and a warm cache, beside a
copy of the same bytes. Writes a CSV per dtype and layout; docs/benchmarking.md explains
every column. Without a CUDA device the exit code is 2, and 3 where `--budget` ran out.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import limits
from benchmarks.arguments import Budget, add_budget, output_folder
from benchmarks.bytes_model import DIRECTIONS, gbps, moved_bytes, network_layers
from benchmarks.cases import DTYPES, LAYOUTS, Case, Inputs, make_inputs, network_cases
from benchmarks.gate import Reference, check
from benchmarks.providers import PROVIDERS, applies, gradients, inputs_for
from benchmarks.results import (
    RESULTS,
    SPEED_COLUMNS,
    Environment,
    earlier_rows,
    rounded,
    speed_name,
    write_rows,
)
from benchmarks.shapes import KINDS, MODELS
from benchmarks.timing import CACHES, GraphTimer, Quantiles, cold_sets, peak_mib
from benchmarks.totals import network_totals, row_kind

Timer = Callable[[Callable[[], object], int], Quantiles]


def runner(
    direction: str, forward: Callable, sets: Sequence[Inputs]
) -> Callable[[], object]:
    """A function that makes one call per set and returns all outputs.

    'fwd' is the forward pass of training: inputs need gradients. 'bwd' runs on graphs
    made here. 'fwd_bwd' runs all forwards before the first backward, as a network
    does, so that in a rotation backward too finds its inputs out of the cache.
    """

    def run_forward():
        return [forward(inputs) for inputs in sets]

    if direction == 'fwd':
        return run_forward
    if direction == 'fwd_bwd':

        def run_both():
            outputs = run_forward()
            return [
                gradients(y, inputs, keep_graph=False)
                for y, inputs in zip(outputs, sets, strict=True)
            ]

        return run_both
    made = run_forward()

    def run_backward():
        return [
            gradients(y, inputs, keep_graph=True)
            for y, inputs in zip(made, sets, strict=True)
        ]

    return run_backward


class CaseBenchmark:
    """One case: its inputs, its gate, and the rows of its CSV."""

    def __init__(
        self,
        case: Case,
        timer: Timer,
        environment: Environment,
        *,
        directions: Sequence[str] = DIRECTIONS,
        device: torch.device | str = 'cuda',
        l2_bytes: int = 0,
        peak: Callable[[Callable[[], object]], float] = peak_mib,
    ):
        self.case = case
        self.timer = timer
        self.environment = environment
        self.directions = directions
        self.device = device
        self.l2_bytes = l2_bytes
        self.peak = peak
        self.rows: list[dict] = []
        self.failures: list[str] = []
        self._copy_ms: dict[tuple[str, str], float] = {}
        self._inputs = make_inputs(case, device)

    def run(self, providers: Sequence[str]) -> None:
        """Measures the limits, then each provider that passes the gate."""
        for name in limits.LIMITS:
            self._guarded(name, self._measure_limit)
        opened = self._open(providers)
        for name, forward in opened:
            self._guarded(name, lambda n, f=forward: self._measure(n, f))

    def _open(self, providers: Sequence[str]) -> list[tuple[str, Callable]]:
        reference = Reference(self.case, self._inputs)
        opened: list[tuple[str, Callable]] = []

        def gate(name: str) -> None:
            forward = PROVIDERS[name](self.case)
            inputs = inputs_for(name, self.case, self._inputs)
            wrong = check(reference, forward, inputs)
            if wrong:
                self.failures.append(f'{name} is refused: {"; ".join(wrong)}')
            else:
                opened.append((name, forward))

        for name in providers:
            if applies(name, self.case):
                self._guarded(name, gate)
        return opened

    def _guarded(self, name: str, step: Callable[[str], None]) -> None:
        # One implementation that raises must not cost the others their measurement.
        try:
            step(name)
        except Exception as error:
            text = (str(error).strip() or repr(error)).splitlines()[0]
            self.failures.append(f'{name}: {type(error).__name__}: {text}')
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _bytes(self, direction: str) -> int:
        case = self.case
        return moved_bytes(direction, case.kind, case.elements, case.itemsize)

    def _sets(self, cache: str) -> int:
        return 1 if cache == 'warm' else cold_sets(self._bytes('fwd'), self.l2_bytes)

    def _measure_limit(self, name: str) -> None:
        dtype = DTYPES[self.case.dtype]
        for direction, cache in itertools.product(self.directions, CACHES):
            steps = ('fwd', 'bwd') if direction == 'fwd_bwd' else (direction,)
            sets = [
                [
                    limits.buffers(name, self._bytes(step), dtype, self.device)
                    for step in steps
                ]
                for _ in range(self._sets(cache))
            ]
            time_of = self.timer(lambda s=sets: limits.run(name, s), len(sets))
            for entry in itertools.chain.from_iterable(sets):
                wrong = limits.wrong(name, entry)
                if wrong:
                    raise RuntimeError(wrong)
            if name == 'copy':
                self._copy_ms[direction, cache] = time_of.p50
            self._add(name, direction, cache, time_of, 0.0)

    def _measure(self, name: str, forward: Callable) -> None:
        first = inputs_for(name, self.case, self._inputs)
        both = runner('fwd_bwd', forward, [first])
        peaks = dict.fromkeys(DIRECTIONS, self.peak(both))
        peaks['fwd'] = self.peak(lambda: forward(first))
        for cache in CACHES:
            clones = range(self._sets(cache) - 1)
            sets = [first, *(first.map(torch.clone) for _ in clones)]
            for direction in self.directions:
                run = runner(direction, forward, sets)
                time_of = self.timer(run, len(sets))
                del run
                self._add(name, direction, cache, time_of, peaks[direction])

    def _add(
        self, name: str, direction: str, cache: str, ms: Quantiles, peak: float
    ) -> None:
        case, here = self.case, self.environment
        copy_ms = self._copy_ms.get((direction, cache))
        if copy_ms is None:
            raise RuntimeError('the copy was not measured, so there is no limit')
        self.rows.append(
            {
                'op': 'group_norm' if name in PROVIDERS else 'limit',
                'dir': direction,
                'impl': name,
                'dtype': case.dtype,
                'layout': case.layout,
                'relu': int(case.relu),
                'residual': int(case.residual),
                'N': case.N,
                'C': case.C,
                'H': case.H,
                'W': case.W,
                'G': case.G,
                'count_r50': case.count_r50,
                'count_r101': case.count_r101,
                'ms_p50': rounded(ms.p50),
                'ms_p20': rounded(ms.p20),
                'ms_p80': rounded(ms.p80),
                'cache': cache,
                'gbps': rounded(gbps(self._bytes(direction), ms.p50)),
                'frac_of_copy': rounded(copy_ms / ms.p50),
                'peak_mib': rounded(peak),
                'gpu': here.gpu,
                'torch': here.torch,
                'triton': here.triton,
                'commit': here.commit,
                'date': here.date,
            }
        )


def table(rows: Sequence[dict], directions: Sequence[str]) -> str:
    """One line per implementation: cold and warm milliseconds, share of the copy."""
    found = {(r['impl'], r['dir'], r['cache']): r for r in rows}
    lines = []
    for impl in dict.fromkeys(row['impl'] for row in rows):
        cells = []
        for direction in directions:
            pair = [found.get((impl, direction, cache)) for cache in CACHES]
            if None not in pair:
                cold, warm = pair
                cells.append(
                    f'{direction} {cold["ms_p50"]:.4f} ({cold["frac_of_copy"]:4.0%}) '
                    f'warm {warm["ms_p50"]:.4f} ({warm["frac_of_copy"]:4.0%})'
                )
        lines.append(f'    {impl:15}' + '   '.join(cells))
    return '\n'.join(lines)


def totals_table(rows: Sequence[dict], models: Sequence[str]) -> str:
    """The network-weighted totals, incomplete ones named as such."""
    lines = []
    for model in models:
        layers = network_layers(model)
        lines.append(f'{model}, every norm of one step, ms and share of the copy')
        for total in network_totals(rows, model):
            what = f'  {total.dir:8}{total.cache:6}{total.impl:15}'
            if total.complete:
                what += f'{total.ms:9.3f} ms {total.gbps:7.0f} GB/s '
                what += f'{total.frac_of_copy:5.0%}'
            else:
                what += f'incomplete: {total.layers} of {layers} norms'
            lines.append(what)
        lines += _speedups(rows, model)
    return '\n'.join(lines)


def _speedups(rows: Sequence[dict], model: str) -> list[str]:
    """How much faster the norms with a ReLU and no residual are than torch's."""
    fused = [row for row in rows if row['relu'] and not row['residual']]
    totals = {(t.dir, t.cache, t.impl): t for t in network_totals(fused, model)}
    lines = []
    for (direction, cache, impl), other in totals.items():
        ours = totals.get((direction, cache, 'gn_det'))
        # The same norms on both sides, or the ratio means nothing.
        if impl.startswith('torch') and ours and ours.layers == other.layers:
            lines.append(
                f'  {direction:8}{cache:6}GN + ReLU, {ours.layers} norms: '
                f'{other.ms / ours.ms:.2f} x {impl}'
            )
    return lines


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--model', nargs='+', choices=MODELS, default=list(MODELS))
    parser.add_argument(
        '--dtype', nargs='+', choices=list(DTYPES), default=['bf16', 'fp32']
    )
    parser.add_argument(
        '--layout', nargs='+', choices=list(LAYOUTS), default=['nhwc', 'nchw']
    )
    parser.add_argument(
        '--fusion',
        nargs='+',
        choices=KINDS,
        help='measure every map with each of these; by default each map has what the '
        'networks fuse into it',
    )
    parser.add_argument(
        '--pass',
        dest='directions',
        nargs='+',
        choices=DIRECTIONS,
        default=list(DIRECTIONS),
    )
    parser.add_argument(
        '--provider', nargs='+', choices=list(PROVIDERS), default=list(PROVIDERS)
    )
    parser.add_argument(
        '--out', type=output_folder, default=RESULTS, help='folder of the CSV'
    )
    add_budget(parser)
    parser.add_argument(
        '--quick', action='store_true', help='few maps and few samples, to try it out'
    )
    return parser.parse_args(argv)


def suffix(args: argparse.Namespace) -> str:
    """Marks the files of runs that do not measure everything."""
    if args.quick:
        return '_quick'
    whole = parse_args([])
    same = all(
        sorted(getattr(args, name)) == sorted(getattr(whole, name))
        for name in ('model', 'directions', 'provider')
    )
    if args.fusion:
        return '_fusion-' + '-'.join(args.fusion) if same else '_partial'
    return '' if same else '_partial'


def is_of(case: Case, row: dict) -> bool:
    """Whether a row of the CSV was measured of this case."""
    sizes = all(int(row[name]) == getattr(case, name) for name in 'NCHWG')
    return sizes and row_kind(row) == case.kind


def measure(
    args: argparse.Namespace, dtype: str, layout: str, budget: Budget
) -> int | None:
    """One CSV; the number of refused or failed measurements, None if time ran out."""
    environment = Environment.here()
    path = args.out / speed_name(dtype, layout, environment.tag, suffix(args))
    cases = network_cases(dtype, layout, args.model, args.fusion)
    timer = GraphTimer()
    if args.quick:
        cases, timer = cases[:: len(cases) // 3], GraphTimer(0.3, 10)
    device = torch.cuda.current_device()
    l2_bytes = torch.cuda.get_device_properties(device).L2_cache_size
    rows: list[dict] = list(earlier_rows(path, environment))
    failures = 0
    started = time.monotonic()
    for number, case in enumerate(cases, 1):
        if any(is_of(case, row) for row in rows):
            continue
        if not budget.begin():
            print(f'out of time before {case}; {path} has {number - 1} cases')
            return None
        benchmark = CaseBenchmark(
            case, timer, environment, directions=args.directions, l2_bytes=l2_bytes
        )
        benchmark.run(args.provider)
        rows += benchmark.rows
        failures += len(benchmark.failures)
        write_rows(path, SPEED_COLUMNS, rows)
        budget.end()
        seconds = time.monotonic() - started
        print(f'[{number}/{len(cases)} {seconds:.0f} s] {dtype} {layout} {case}')
        print(table(benchmark.rows, args.directions))
        for failure in benchmark.failures:
            print(f'    FAILED {failure}')
        sys.stdout.flush()
    print(totals_table(rows, args.model))
    print(f'wrote {path}; {failures} failures', flush=True)
    return failures


def main(argv: Sequence[str] | None = None) -> int:
    """0: all was measured; 1: something failed; 2: no CUDA; 3: time ran out."""
    args = parse_args(argv)
    budget = Budget(args.budget)
    if not torch.cuda.is_available():
        print(
            'Timing needs a CUDA device, and torch sees none here; nothing was '
            'measured.',
            file=sys.stderr,
        )
        return 2
    failures = 0
    # Captures need a side stream, and tensors must live on the stream that uses them.
    with torch.cuda.stream(torch.cuda.Stream()):
        for dtype, layout in itertools.product(args.dtype, args.layout):
            found = measure(args, dtype, layout, budget)
            if found is None:
                return 3
            failures += found
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())

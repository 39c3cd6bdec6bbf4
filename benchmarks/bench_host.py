"""Host cost of a call: microseconds that Python and the launches take.

    python benchmarks/bench_host.py

Compares the fused eager call with torch's chain of norm, add and ReLU, forward and
backward. With a CUDA device it measures whole calls; the queue never fills and nothing
waits for the device. Without one it measures up to the launch: the Triton launches are
stubbed, and torch runs its CPU operators on a map so small that their arithmetic
vanishes. docs/benchmarking.md says what the two leave out.
"""

import argparse
import contextlib
import gc
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.arguments import output_folder, positive
from benchmarks.host_stub import REGIMES, launches_stubbed, regime
from benchmarks.providers import torch_forward
from benchmarks.results import (
    HOST_COLUMNS,
    RESULTS,
    Environment,
    host_name,
    rounded,
    write_rows,
)
from benchmarks.shapes import GROUPS, KINDS, SHAPES
from benchmarks.timing import Quantiles
from gn_det.ops import group_norm

AIM = 1.5
# A backward pass has a fixed cost of its own; over a chain it is shared, as in a
# network. Fewer launches than the queue of a GPU holds (about a thousand).
CHAIN = 20
_MAPS = {'cuda': (2, 256, 25, 42), 'cpu': (2, 64, 2, 2)}
_LAYOUTS = {'nchw': torch.contiguous_format, 'nhwc': torch.channels_last}

Layer = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def gn_det_layer(relu: bool) -> Layer:
    """The fused call, with the implementation chosen as in a network."""
    activation = 'relu' if relu else None

    def layer(x, weight, bias, residual):
        return group_norm(
            x, GROUPS, weight, bias, activation=activation, residual=residual
        )

    return layer


def torch_layer(relu: bool) -> Layer:
    """Torch's chain for the same."""

    def layer(x, weight, bias, residual):
        return torch_forward(x, GROUPS, weight, bias, residual, relu)

    return layer


class Chain:
    """A stack of norms, timed once forward and once backward, per norm."""

    def __init__(self, layer: Layer, kind: str, layout: str, device: str):
        self.layer = layer
        self.device = device
        size = _MAPS[device]

        def draw_map() -> Tensor:
            drawn = torch.randn(size, device=device)
            return drawn.contiguous(memory_format=_LAYOUTS[layout])

        def draw_vector() -> Tensor:
            return torch.randn(size[1], device=device).requires_grad_()

        self.x = draw_map().requires_grad_()
        self.dy = draw_map()
        self.parameters = [
            (
                draw_vector(),
                draw_vector(),
                draw_map().requires_grad_() if kind == 'residual_relu' else None,
            )
            for _ in range(CHAIN)
        ]
        self.leaves = [self.x]
        for layer_parameters in self.parameters:
            self.leaves += [t for t in layer_parameters if t is not None]

    def __call__(self) -> tuple[float, float]:
        """Microseconds per norm, forward and backward."""
        y = self.x
        start = time.perf_counter_ns()
        for weight, bias, residual in self.parameters:
            y = self.layer(y, weight, bias, residual)
        forward = time.perf_counter_ns() - start
        self._wait()
        start = time.perf_counter_ns()
        torch.autograd.grad(y, self.leaves, self.dy)
        backward = time.perf_counter_ns() - start
        self._wait()
        return forward * 1e-3 / CHAIN, backward * 1e-3 / CHAIN

    def _wait(self) -> None:
        if self.device == 'cuda':
            torch.cuda.synchronize()


def compare(
    kind: str, layout: str, device: str, repeats: int
) -> dict[tuple[str, str], Quantiles]:
    """Quantiles in microseconds by (implementation, direction)."""
    relu = kind != 'plain'
    chains = {
        'gn_det': Chain(gn_det_layer(relu), kind, layout, device),
        'torch': Chain(torch_layer(relu), kind, layout, device),
    }
    samples: dict[tuple[str, str], list[float]] = {}
    for chain in chains.values():
        for _ in range(3):
            chain()
    collecting = gc.isenabled()
    gc.disable()
    try:
        # In turn, so that a disturbance of the machine falls on both.
        for _ in range(repeats):
            for name, chain in chains.items():
                forward, backward = chain()
                samples.setdefault((name, 'fwd'), []).append(forward)
                samples.setdefault((name, 'bwd'), []).append(backward)
    finally:
        if collecting:
            gc.enable()
    return {key: Quantiles.of(values) for key, values in samples.items()}


def measure(device: str, repeats: int, environment: Environment) -> list[dict]:
    """The rows of the CSV: every fusion and layout, in each regime of the launcher."""
    stub = launches_stubbed() if device == 'cpu' else contextlib.nullcontext()
    rows = []
    with stub:
        for name in REGIMES:
            with regime(name):
                for layout in _LAYOUTS:
                    for kind in KINDS:
                        found = compare(kind, layout, device, repeats)
                        rows += _rows(found, name, layout, kind, device, environment)
    return rows


def _rows(
    found: dict[tuple[str, str], Quantiles],
    regime_name: str,
    layout: str,
    kind: str,
    device: str,
    here: Environment,
) -> list[dict]:
    return [
        {
            'op': 'group_norm',
            'dir': direction,
            'impl': impl,
            'dtype': 'fp32',
            'layout': layout,
            'relu': int(kind != 'plain'),
            'residual': int(kind == 'residual_relu'),
            'regime': regime_name,
            'us_p50': rounded(us.p50),
            'us_p20': rounded(us.p20),
            'us_p80': rounded(us.p80),
            'ratio_to_torch': rounded(us.p50 / found['torch', direction].p50),
            'scope': scope(device),
            'python': here.python,
            'gpu': here.gpu,
            'torch': here.torch,
            'triton': here.triton,
            'commit': here.commit,
            'date': here.date,
        }
        for (impl, direction), us in found.items()
    ]


def scope(device: str) -> str:
    """What a row covers: whole calls, or up to the launch."""
    return 'whole-call' if device == 'cuda' else 'up-to-launch'


def table(rows: Sequence[dict]) -> str:
    """Microseconds side by side, with the ratio against the aim."""
    lines = ['regime   layout fusion         dir    gn_det us  torch us  ratio']
    by_key: dict[tuple, dict[str, dict]] = {}
    for row in rows:
        kind = KINDS[row['relu'] + row['residual']]
        key = (row['regime'], row['layout'], kind, row['dir'])
        by_key.setdefault(key, {})[row['impl']] = row
    for (name, layout, kind, direction), pair in by_key.items():
        ratio = pair['gn_det']['ratio_to_torch']
        lines.append(
            f'{name:9}{layout:7}{kind:15}{direction:5}'
            f'{pair["gn_det"]["us_p50"]:11.1f}{pair["torch"]["us_p50"]:10.1f}'
            f'{ratio:7.2f}{"" if ratio <= AIM else f"  above the aim of {AIM}"}'
        )
    return '\n'.join(lines)


def network_table(rows: Sequence[dict], model: str = 'r50') -> str:
    """Host milliseconds of all norms of one step, weighted by what they fuse."""
    calls = dict.fromkeys(KINDS, 0)
    for shape in SHAPES:
        calls[shape.kind] += shape.calls(model)
    totals: dict[tuple, float] = {}
    for row in rows:
        kind = KINDS[row['relu'] + row['residual']]
        key = (row['regime'], row['layout'], row['dir'], row['impl'])
        totals[key] = totals.get(key, 0) + calls[kind] * row['us_p50'] * 1e-3
    lines = [f'all norms of {model}: {calls}']
    for regime_name, layout, direction, impl in totals:
        if impl == 'gn_det':
            ours = totals[regime_name, layout, direction, 'gn_det']
            other = totals[regime_name, layout, direction, 'torch']
            lines.append(
                f'{regime_name:9}{layout:7}{direction:5}gn_det {ours:.2f} ms, '
                f'torch {other:.2f} ms, ratio {ours / other:.2f}'
            )
    return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table and writes the CSV."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--repeats', type=positive, default=200, help='samples of a chain'
    )
    parser.add_argument(
        '--out', type=output_folder, default=RESULTS, help='folder of the CSV'
    )
    args = parser.parse_args(argv)
    # Small tensors: threads cost more than they bring, and disturb the timing.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    environment = Environment.here()
    try:
        rows = measure(device, args.repeats, environment)
    finally:
        torch.set_num_threads(threads)
    path = args.out / host_name(environment.tag, scope(device))
    write_rows(path, HOST_COLUMNS, rows)
    print(table(rows))
    print(network_table(rows))
    print(f'{scope(device)}, {CHAIN} norms a sample, median of {args.repeats}')
    print(f'wrote {path}')
    return 0


if __name__ == '__main__':
    sys.exit(main())

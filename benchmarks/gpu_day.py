"""Everything that a CUDA machine should be asked, the most telling first.

    GPU_SECONDS=540 python benchmarks/gpu_day.py

Correctness first: the tests that need a GPU. If they are red, nothing is timed. Then
the op in R-50's norms and whole training steps, then the rest, as far as the time
reaches. Each row is in its CSV before the next begins, and a second call goes on where
the first one stopped, so short leases add up. At the end plots and README's table are
made of what is there. Needs torch, Triton and pytest; what needs mmdet too is left out
without it. The exit code is 0 if all is done, 1 if something failed, 2 without a CUDA
device, 3 if time ran out.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.results import RESULTS  # noqa: E402

OUT_OF_TIME = 3
# What tests and plots need; a step is not begun with less.
_LEAST_S = 20.0


@dataclass(frozen=True)
class Step:
    """One command of the day; `budgeted` ones stop by themselves when time is up."""

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    budgeted: bool = True
    """Whether it takes `--budget`, leaves whole CSVs and goes on where it stopped."""

    gate: bool = False
    """Whether nothing is timed if it fails."""


def _op(*options: str) -> tuple[str, ...]:
    return ('benchmarks/bench_group_norm.py', *options)


def _detector(*options: str) -> tuple[str, ...]:
    return ('benchmarks/bench_detector.py', *options)


_MMDET = ('mmengine', 'mmcv', 'mmdet')
STEPS = (
    Step(
        'tests',
        ('-m', 'pytest', '-q', '-m', 'gpu', 'tests/ops'),
        needs=('pytest',),
        budgeted=False,
        gate=True,
    ),
    Step('op, bf16 NHWC', _op('--dtype', 'bf16', '--layout', 'nhwc')),
    Step('op, bf16 NCHW', _op('--dtype', 'bf16', '--layout', 'nchw')),
    Step(
        'R-50, bf16 NHWC',
        _detector('--model', 'r50', '--dtype', 'bf16', '--layout', 'nhwc'),
        needs=_MMDET,
    ),
    Step('op, fp32', _op('--dtype', 'fp32')),
    Step('host cost', ('benchmarks/bench_host.py',), budgeted=False),
    Step(
        'R-50, the rest',
        _detector('--model', 'r50', '--dtype', 'bf16', 'fp32'),
        needs=_MMDET,
    ),
    Step('R-101', _detector('--model', 'r101'), needs=_MMDET),
    Step('op, fp16', _op('--dtype', 'fp16')),
    Step('all tests of the op', ('-m', 'pytest', '-q', 'tests/ops'), budgeted=False),
)


def run_day(
    steps: Sequence[Step],
    seconds: float,
    out: Path,
    *,
    call: Callable[[list[str], float], int],
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Run the steps in order within so many seconds; the exit code of the whole.

    Args:
        steps: the day.
        seconds: the time there is.
        out: folder of the CSVs.
        call: runs a command, at most so many seconds long, and returns its exit code.
        clock: seconds.
    """
    end = clock() + seconds
    failed = False
    for step in steps:
        missing = [
            name for name in step.needs if importlib.util.find_spec(name) is None
        ]
        if missing:
            print(f'== {step.name}: left out, {", ".join(missing)} is not installed')
            continue
        left = end - clock() - _LEAST_S
        if left <= 0:
            print(f'== {step.name}: out of time; the same command goes on from here')
            return OUT_OF_TIME
        print(f'== {step.name}: {left:.0f} s left', flush=True)
        command = [sys.executable, *step.command]
        if step.budgeted:
            command += ['--budget', f'{left:.0f}', '--out', str(out)]
        code = call(command, left)
        if code == OUT_OF_TIME:
            return OUT_OF_TIME
        if code and step.gate:
            print(f'== {step.name} failed: nothing is timed')
            return 1
        failed |= code != 0
    return int(failed)


def _call(command: list[str], seconds: float) -> int:
    try:
        return subprocess.run(
            command, cwd=ROOT, timeout=seconds, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        print(f'== stopped after {seconds:.0f} s')
        return OUT_OF_TIME


def main(argv: Sequence[str] | None = None) -> int:
    """Run the day; see the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--seconds',
        type=float,
        default=float(os.environ.get('GPU_SECONDS') or 'inf'),
        help='default: the variable GPU_SECONDS, or no limit',
    )
    parser.add_argument('--out', type=Path, default=RESULTS, help='folder of the CSVs')
    args = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print('torch sees no CUDA device here; nothing was measured', file=sys.stderr)
        return 2
    code = run_day(STEPS, args.seconds, args.out, call=_call)
    for tool in ('plot.py', 'readme_table.py'):
        subprocess.run([sys.executable, f'benchmarks/{tool}'], cwd=ROOT, check=False)
    return code


if __name__ == '__main__':
    sys.exit(main())

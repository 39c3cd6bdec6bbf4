"""Memory that one training step of a detector keeps for backward, part by part.

    python benchmarks/memory_detector.py

Counts bytes instead of allocating them, so it needs no GPU and takes a minute:
backbone, neck and heads run on fake tensors, and each storage that autograd keeps is
counted once. Losses, gradients, optimiser state and the convolutions' workspaces are
not in it. Writes one CSV; docs/benchmarking.md explains every column.
"""

import argparse
import functools
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmengine.logging import MMLogger

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.arguments import output_folder, positive
from benchmarks.detector_data import padded
from benchmarks.detectors import AFFINE, DEPTHS, VARIANTS, build
from benchmarks.kept_memory import Counted, count_fake
from benchmarks.results import (
    MEMORY_COLUMNS,
    RESULTS,
    Environment,
    memory_name,
    rounded,
    write_rows,
)
from gn_det.workbench.inspection.kept_memory import PARTS

COUNTED = {
    **VARIANTS,
    # Without the fp32 rule of CUDA's autocast, for orientation.
    'stock_gn_16bit': VARIANTS['stock_gn'],
    'affine_bn_4conv1fc': AFFINE,
}
BASELINE = 'frozen_bn_4conv1fc'
DTYPES = ('fp32', 'bf16')
# Nothing frozen, and the stem and the first stage, as the configs that fine-tune.
FROZEN_STAGES = (-1, 1)


def applies(variant: str, dtype: str) -> bool:
    """Whether a variant means something: a norm in 16 bits needs autocast."""
    return variant != 'stock_gn_16bit' or dtype != 'fp32'


def count(
    variant: str,
    model: str,
    dtype: str,
    frozen_stages: int,
    size: tuple[int, int, int],
) -> Counted:
    """What one variant keeps for (images, height, width), as padded."""
    chosen = COUNTED[variant]
    return count_fake(
        functools.partial(build, chosen, model, frozen_stages=frozen_stages),
        size,
        amp=dtype != 'fp32',
        recomputing=chosen.recompute,
        norm_policy=variant == 'stock_gn',
    )


def measure(args: argparse.Namespace, environment: Environment) -> Iterator[list[dict]]:
    """The rows of the CSV, those of one model, dtype and frozen_stages at a time."""
    height, width = padded(args.height, args.width)
    for model, dtype, frozen_stages in itertools.product(
        args.model, args.dtype, args.frozen_stages
    ):
        size = (args.batch, height, width)
        found = {
            name: count(name, model, dtype, frozen_stages, size)
            for name in COUNTED
            if applies(name, dtype)
        }
        base = found[BASELINE].kept
        rows = []
        for name, counted in found.items():
            kept = counted.kept
            rows.append(
                {
                    'model': model,
                    'variant': name,
                    'dtype': dtype,
                    'frozen_stages': frozen_stages,
                    'batch': args.batch,
                    'height': height,
                    'width': width,
                    **{f'{part}_mib': _mib(kept.parts[part]) for part in PARTS},
                    'trunk_mib': _mib(kept.trunk),
                    'total_mib': _mib(kept.total),
                    'trunk_ratio': rounded(kept.trunk / base.trunk),
                    'total_ratio': rounded(kept.total / base.total),
                    'norms': counted.forward.calls,
                    'norms_mib': _mib(counted.forward.bytes),
                    'recomputed_norms': counted.recomputed.calls,
                    'recomputed_mib': _mib(counted.recomputed.bytes),
                    'torch': environment.torch,
                    'commit': environment.commit,
                    'date': environment.date,
                }
            )
        yield rows


def _mib(nbytes: int) -> float:
    return rounded(nbytes / 2**20)


def table(rows: Sequence[dict]) -> str:
    """MiB of each part, with backbone + neck and the whole over frozen BN's."""
    row = rows[0]
    parts = ''.join(f'{part:>10}' for part in PARTS)
    lines = [
        f'{row["model"]} {row["dtype"]} frozen_stages={row["frozen_stages"]}, '
        f'{row["batch"]} x {row["height"]} x {row["width"]}, MiB',
        f'  {"":20}{parts}   total   of BN: bb+neck  total',
    ]
    for row in rows:
        mib = ''.join(f'{row[f"{part}_mib"]:10.0f}' for part in PARTS)
        lines.append(
            f'  {row["variant"]:20}{mib}{row["total_mib"]:8.0f}'
            f'{row["trunk_ratio"]:18.3f}{row["total_ratio"]:7.3f}'
        )
        if row['recomputed_norms']:
            lines.append(
                f'  {"":20}backward recomputes {row["recomputed_norms"]} norms '
                f'({row["recomputed_mib"]:.0f} MiB moved); forward has {row["norms"]} '
                f'({row["norms_mib"]:.0f} MiB)'
            )
    return '\n'.join(lines)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--model', nargs='+', choices=list(DEPTHS), default=list(DEPTHS)
    )
    parser.add_argument('--dtype', nargs='+', choices=DTYPES, default=list(DTYPES))
    parser.add_argument(
        '--frozen-stages',
        nargs='+',
        type=int,
        choices=(-1, 0, 1, 2, 3, 4),
        default=list(FROZEN_STAGES),
        help="the backbone's setting of that name; -1: everything is trained",
    )
    parser.add_argument('--height', type=positive, default=800, help='before padding')
    parser.add_argument('--width', type=positive, default=1333, help='before padding')
    parser.add_argument('--batch', type=positive, default=2, help='images')
    parser.add_argument(
        '--out', type=output_folder, default=RESULTS, help='folder of the CSV'
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table and writes the CSV."""
    args = parse_args(argv)
    # Each model says how it was fused; here that would come a hundred times.
    MMLogger.get_current_instance().setLevel('WARNING')
    environment = Environment.here()
    rows = []
    for some in measure(args, environment):
        rows += some
        print(table(some), flush=True)
    whole = vars(parse_args([])) | {'out': args.out} == vars(args)
    suffix = '' if whole else '_partial'
    path = args.out / memory_name(environment.torch, suffix)
    write_rows(path, MEMORY_COLUMNS, rows)
    print(f'wrote {path}')
    return 0


if __name__ == '__main__':
    sys.exit(main())

"""Speed and memory of Mask R-CNN with fused or stock Group Norm or frozen Batch Norm.

    python benchmarks/bench_detector.py --model r50 --dtype bf16 --layout nhwc

Times a training step (forward, backward, SGD) and inference of the project's configs on
generated images. First the fused models' losses and gradients are held against the
stock model's; one that differs gets no time, and the exit code is 1. What does not fit
into memory is named in its row, and the run goes on. Writes a CSV per model, dtype and
layout; docs/benchmarking.md explains every column. Without a CUDA device it runs a tiny
size, to try it out.
"""

import argparse
import gc
import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.arguments import Budget, add_budget, output_folder, positive
from benchmarks.cases import LAYOUTS
from benchmarks.detector_data import Batch, make_batch, prefer_one_class
from benchmarks.detector_gate import Gate, randomise_norms, tf32
from benchmarks.detector_profile import KINDS, time_by_kind
from benchmarks.detector_steps import MODES, Detector, time_calls
from benchmarks.detectors import DEPTHS, VARIANTS, build
from benchmarks.results import (
    DETECTOR_COLUMNS,
    RESULTS,
    Environment,
    detector_name,
    earlier_rows,
    rounded,
    write_rows,
)

DTYPES = ('fp32', 'bf16')
BATCHES = (1, 2, 4, 8)
STOCK = 'stock_gn'
# Height, width, and regions an image: the configs', and what a CPU does in a second.
_CUDA_SIZE = (800, 1333, 512)
_CPU_SIZE = (64, 96, 8)
_OUT_OF_MEMORY = 'out of memory'


def applies(variant: str, mode: str) -> bool:
    """Whether there is anything to time: inference has no backward to recompute for."""
    return mode == 'train' or not VARIANTS[variant].recompute


class DetectorBenchmark:
    """One model, dtype and layout: its gate, and the rows of its CSV."""

    def __init__(
        self,
        args: argparse.Namespace,
        model: str,
        dtype: str,
        layout: str,
        environment: Environment,
        budget: Budget,
    ):
        self.rows: list[dict] = []
        self._budget = budget
        self.failures: list[str] = []
        self._args = args
        self._settings = {'model': model, 'dtype': dtype, 'layout': layout}
        self._environment = environment
        self._amp = dtype != 'fp32'
        self._device = 'cuda' if torch.cuda.is_available() else 'cpu'
        # Of the Group Norm models: random, the same for each.
        self._weights = self._gn_weights()

    def _gn_weights(self) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = build(VARIANTS[STOCK], self._settings['model'])
        randomise_norms(model)
        prefer_one_class(model)
        return model.state_dict()

    def _build(self, variant: str) -> nn.Module:
        torch.manual_seed(0)
        built = build(
            VARIANTS[variant],
            self._settings['model'],
            channels_last=self._settings['layout'] == 'nhwc',
            regions=self._args.regions,
        )
        if VARIANTS[variant].group_norm:
            built.load_state_dict(self._weights)
        else:
            prefer_one_class(built)
        return built.to(self._device)

    def _batch(self, count: int) -> Batch:
        args = self._args
        layout = LAYOUTS[self._settings['layout']]
        # In inference the box head sees about twice the regions it is trained on.
        proposals = 1000 if args.regions >= 500 else 2 * args.regions
        return make_batch(
            count, args.height, args.width, self._device, layout, proposals
        )

    def refused(self) -> dict[str, str]:
        """The fused variants that are asked for and differ from stock, with the how."""
        fused = [
            name
            for name in self._args.variant
            if VARIANTS[name].group_norm and not VARIANTS[name].stock
        ]
        if not fused:
            return {}
        batch = self._batch(1)
        gate = Gate(self._build(STOCK), batch, amp=self._amp)
        found = {}
        for name in fused:
            try:
                wrong = gate.check(self._build(name))
            except Exception as error:
                # A model that cannot make a step must not cost the others their time.
                wrong = [_in_words(error)]
            if wrong:
                found[name] = 'refused: ' + '; '.join(wrong)
        return found

    def run(self, path: Path) -> bool:
        """Measures everything asked for; the CSV is whole after each row.

        False if time ran out before the last.
        """
        self.rows = list(earlier_rows(path, self._environment))
        asked = [
            (variant, mode, count)
            for variant in self._args.variant
            for mode in self._args.mode
            if applies(variant, mode)
            for count in sorted(self._args.batch)
        ]
        # What README shows comes first, should the time run out.
        asked.sort(key=lambda row: (row[2] != 2, row[1] != 'train'))
        known = {(r['variant'], r['mode'], int(r['batch'])) for r in self.rows}
        missing = [row for row in asked if row not in known]
        if not missing:
            return True
        refused = self.refused()
        for variant, why in refused.items():
            self.failures.append(f'{variant} is {why}')
        # By variant and mode: the batch that did not fit, and its status.
        too_large: dict[tuple[str, str], tuple[int, str]] = {}
        for variant, mode, count in missing:
            if not self._budget.begin():
                return False
            least, out_of_memory = too_large.get((variant, mode), (count + 1, None))
            status = refused.get(variant) or (out_of_memory if count >= least else None)
            status = self._run(variant, mode, count, status, path)
            if status.startswith(_OUT_OF_MEMORY):
                # A larger batch would not fit either.
                too_large[variant, mode] = min(count, least), status
            self._budget.end()
        return True

    def _run(
        self, variant: str, mode: str, count: int, status: str | None, path: Path
    ) -> str:
        started = time.monotonic()
        measured = {}
        if status is None:
            try:
                measured = self._measure(variant, mode, count)
            except torch.OutOfMemoryError:
                status = f'{_OUT_OF_MEMORY} at batch {count}'
            except Exception as error:
                status = _in_words(error)
                self.failures.append(f'{variant} {mode} {count}: {status}')
            _release()
        status = status or 'ok'
        row = self._row(variant, mode, count, status, measured)
        self.rows.append(row)
        write_rows(path, DETECTOR_COLUMNS, self.rows)
        seconds = time.monotonic() - started
        print(f'{line(row)}   [{seconds:.0f} s]', flush=True)
        return status

    def _measure(self, variant: str, mode: str, count: int) -> dict:
        args = self._args
        detector = Detector(
            self._build(variant),
            self._batch(count),
            mode,
            amp=self._amp,
            recompute=VARIANTS[variant].recompute,
        )
        cuda = self._device == 'cuda'
        budget = dict(seconds=args.seconds, least=args.least, warm_up=args.warm_up)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        times = time_calls(detector.step, **budget)
        measured = {
            'ms_p50': rounded(times.whole.p50),
            'ms_p20': rounded(times.whole.p20),
            'ms_p80': rounded(times.whole.p80),
            'samples': times.samples,
            'images_per_s': rounded(count * 1e3 / times.whole.p50),
            'host_ms_p50': rounded(times.host.p50),
            'cpu_ms_p50': rounded(times.cpu.p50),
        }
        if cuda:
            peak = torch.cuda.max_memory_allocated() / 2**20
            measured['peak_mib'] = rounded(peak)
        if detector.detections is not None:
            measured['detections'] = rounded(detector.detections)
        trunk = time_calls(detector.trunk, **(budget | {'seconds': args.seconds / 2}))
        measured['trunk_host_ms_p50'] = rounded(trunk.host.p50)
        if args.profile and count == _profiled_batch(args.batch):
            for kind, ms in time_by_kind(detector.step).items():
                measured[f'{kind}_ms'] = rounded(ms)
        return measured

    def _row(
        self, variant: str, mode: str, count: int, status: str, measured: dict
    ) -> dict:
        here = self._environment
        row = dict.fromkeys(DETECTOR_COLUMNS, '')
        row.update(self._settings, variant=variant, mode=mode, batch=count)
        row.update(height=self._args.height, width=self._args.width, status=status)
        row.update(measured)
        row.update(gpu=here.gpu, torch=here.torch, triton=here.triton)
        return row | {'commit': here.commit, 'date': here.date}


def _profiled_batch(batches: Sequence[int]) -> int:
    """Two images, the configs' batch on a GPU, or what is nearest to it."""
    return min(batches, key=lambda count: abs(count - 2))


def _release() -> None:
    # What failed is held by the exception's frames until they are collected.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _in_words(error: Exception) -> str:
    text = (str(error).strip() or repr(error)).splitlines()[0]
    return f'failed: {type(error).__name__}: {text}'


def line(row: dict) -> str:
    """A row of the CSV as people read it."""
    what = f'  {row["variant"]:20}{row["mode"]:6}{row["batch"]:3}  '
    if row['status'] != 'ok':
        return what + row['status']
    what += (
        f'{row["ms_p50"]:9.2f} ms ({row["ms_p20"]:.2f} to {row["ms_p80"]:.2f})'
        f'{row["images_per_s"]:8.2f} images/s   host {row["host_ms_p50"]:.2f} ms '
        f'(CPU {row["cpu_ms_p50"]:.2f}, trunk {row["trunk_host_ms_p50"]:.2f})'
    )
    return what + (f'   {row["peak_mib"]:.0f} MiB' if row['peak_mib'] != '' else '')


def table(rows: Sequence[dict]) -> str:
    """Milliseconds by batch, and their ratio to frozen BN's with the same head."""
    cells = {(r['variant'], r['mode'], r['batch']): r for r in rows}
    batches = sorted({row['batch'] for row in rows})
    lines = []
    for mode in dict.fromkeys(row['mode'] for row in rows):
        heads = ''.join(f'{f"batch {count}":>22}' for count in batches)
        lines.append(f'{mode:22}{heads}   ms (x frozen BN, 4conv1fc)')
        for variant in dict.fromkeys(r['variant'] for r in rows if r['mode'] == mode):
            text = ''
            for count in batches:
                row = cells.get((variant, mode, count))
                base = cells.get(('frozen_bn_4conv1fc', mode, count))
                text += f'{_cell(row, base):>22}'
            lines.append(f'  {variant:20}{text}')
    return '\n'.join(lines)


def _cell(row: dict | None, base: dict | None) -> str:
    if row is None or row['status'] != 'ok':
        return 'none' if row is None else row['status'].split(':')[0][:20]
    if base is None or base['status'] != 'ok':
        return f'{row["ms_p50"]:.2f}'
    return f'{row["ms_p50"]:.2f} ({row["ms_p50"] / base["ms_p50"]:.2f})'


def profile_table(rows: Sequence[dict]) -> str:
    """Where the time goes: milliseconds of a step by kind of kernel, and shares."""
    profiled = [row for row in rows if row['norm_ms'] != '']
    lines = ['time by kind, ms a step' + ''.join(f'{kind:>19}' for kind in KINDS)]
    for row in profiled:
        ms = {kind: row[f'{kind}_ms'] for kind in KINDS}
        total = max(sum(ms.values()), 1e-9)
        text = ''.join(f'{f"{v:.2f} ({v / total:.0%})":>19}' for v in ms.values())
        lines.append(f'  {row["variant"]:20}{row["mode"]:6}{row["batch"]:3}{text}')
    return '\n'.join(lines) if profiled else ''


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    height, width, regions = _CUDA_SIZE if torch.cuda.is_available() else _CPU_SIZE
    parser.add_argument('--model', nargs='+', choices=list(DEPTHS), default=['r50'])
    parser.add_argument('--dtype', nargs='+', choices=DTYPES, default=list(DTYPES))
    parser.add_argument(
        '--layout', nargs='+', choices=list(LAYOUTS), default=['nhwc', 'nchw']
    )
    parser.add_argument(
        '--variant', nargs='+', choices=list(VARIANTS), default=list(VARIANTS)
    )
    parser.add_argument('--mode', nargs='+', choices=MODES, default=list(MODES))
    parser.add_argument('--batch', nargs='+', type=positive, default=list(BATCHES))
    parser.add_argument(
        '--height', type=positive, default=height, help='before padding (%(default)s)'
    )
    parser.add_argument(
        '--width', type=positive, default=width, help='before padding (%(default)s)'
    )
    parser.add_argument(
        '--regions',
        type=positive,
        default=regions,
        help='regions an image in training (%(default)s)',
    )
    parser.add_argument(
        '--seconds', type=float, default=3, help='of samples a row (%(default)s)'
    )
    parser.add_argument(
        '--least', type=positive, default=5, help='samples, however long (%(default)s)'
    )
    parser.add_argument(
        '--warm-up', type=int, default=3, help='calls before (%(default)s)'
    )
    add_budget(parser)
    parser.add_argument('--no-profile', dest='profile', action='store_false')
    parser.add_argument(
        '--out', type=output_folder, default=RESULTS, help='folder of the CSV'
    )
    return parser.parse_args(argv)


def suffix(args: argparse.Namespace) -> str:
    """Marks the files of runs at another size, or that do not measure everything."""
    size = (args.height, args.width, args.regions)
    marks = '' if size == _CUDA_SIZE else f'_{args.height}x{args.width}'
    whole = {
        'variant': list(VARIANTS),
        'mode': list(MODES),
        'batch': list(BATCHES),
        'profile': True,
    }
    asked = {
        name: sorted(value) if isinstance(value, list) else value
        for name, value in vars(args).items()
    }
    same = all(
        asked[name] == (sorted(value) if isinstance(value, list) else value)
        for name, value in whole.items()
    )
    return marks if same and not marks else f'{marks}_partial'


def main(argv: Sequence[str] | None = None) -> int:
    """0: all was measured that fits; 1: something failed; 3: time ran out."""
    args = parse_args(argv)
    budget = Budget(args.budget)
    # Each model says how it was fused; here that would come again and again.
    MMLogger.get_current_instance().setLevel('WARNING')
    environment = Environment.here()
    failures = 0
    for model, dtype, layout in itertools.product(args.model, args.dtype, args.layout):
        name = detector_name(model, dtype, layout, environment.tag, suffix(args))
        path = args.out / name
        print(f'{model} {dtype} {layout} {args.height} x {args.width}', flush=True)
        benchmark = DetectorBenchmark(args, model, dtype, layout, environment, budget)
        with tf32(True):
            complete = benchmark.run(path)
        print(table(benchmark.rows))
        print(profile_table(benchmark.rows))
        for failure in benchmark.failures:
            print(f'  FAILED {failure}')
        failures += len(benchmark.failures)
        print(f'wrote {path}; {len(benchmark.failures)} failures', flush=True)
        if not complete:
            print('out of time before the last row')
            return 3
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())

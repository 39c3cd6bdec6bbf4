"""The CSV files: their columns, their names, and what a machine writes into them."""

import contextlib
import csv
import datetime
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import triton

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / 'benchmarks' / 'results'
SPEED = 'group-norm'
HOST = 'host-cost'
MEMORY = 'detector-memory'
DETECTOR = 'detector'
FUSION = 'fusion'
COUNTS = 'kernel-counts'

_ENVIRONMENT = ('gpu', 'torch', 'triton', 'commit', 'date')
SPEED_COLUMNS = (
    *('op', 'dir', 'impl', 'dtype', 'layout', 'relu', 'residual'),
    *('N', 'C', 'H', 'W', 'G', 'count_r50', 'count_r101'),
    *('ms_p50', 'ms_p20', 'ms_p80', 'cache', 'gbps', 'frac_of_copy', 'peak_mib'),
    *_ENVIRONMENT,
)
HOST_COLUMNS = (
    *('op', 'dir', 'impl', 'dtype', 'layout', 'relu', 'residual', 'regime'),
    *('us_p50', 'us_p20', 'us_p80', 'ratio_to_torch', 'scope', 'python'),
    *_ENVIRONMENT,
)
MEMORY_COLUMNS = (
    *('model', 'variant', 'dtype', 'frozen_stages', 'batch', 'height', 'width'),
    *('backbone_mib', 'neck_mib', 'rpn_head_mib', 'box_head_mib', 'mask_head_mib'),
    *('trunk_mib', 'total_mib', 'trunk_ratio', 'total_ratio'),
    *('norms', 'norms_mib', 'recomputed_norms', 'recomputed_mib'),
    *('torch', 'commit', 'date'),
)
DETECTOR_COLUMNS = (
    *('model', 'variant', 'mode', 'dtype', 'layout', 'batch', 'height', 'width'),
    *('status', 'ms_p50', 'ms_p20', 'ms_p80', 'samples', 'images_per_s', 'peak_mib'),
    *('host_ms_p50', 'cpu_ms_p50', 'trunk_host_ms_p50', 'detections'),
    *('norm_ms', 'add_relu_ms', 'cast_layout_ms', 'conv_ms', 'other_ms'),
    *_ENVIRONMENT,
)
# What `fuse` makes of the norms of a model, as the fields of `FusionReport`.
FUSION_COUNTS = (
    *('norms', 'relu', 'silu', 'add', 'add_relu', 'add_silu'),
    *('plain', 'untouched', 'outside', 'why'),
)
_RELEASES = ('host', 'torch', 'date')
FUSION_COLUMNS = {
    'hosts': (
        *('model', 'class', *FUSION_COUNTS, 'operators', 'difference'),
        *_RELEASES,
    ),
    'configs': ('config', 'model', *FUSION_COUNTS, 'operators', *_RELEASES),
    'runs': ('config', 'tensors', 'override', 'fuse', 'why', *_RELEASES),
}
COUNTS_COLUMNS = (
    *('impl', 'label', 'dir', 'dtype', 'layout', 'relu', 'residual'),
    *('N', 'C', 'H', 'W', 'G', 'count_r50', 'count_r101'),
    *('us', 'us_copy', 'frac_of_copy', 'launches', 'units', 'dram_units'),
    *('instructions_per_element', 'sectors_over_ideal'),
    *('registers', 'spilled', 'occupancy', 'kernels'),
    *('torch', 'triton', 'commit', 'date'),
)


@dataclass(frozen=True)
class Environment:
    """Where and with what a row was measured; `gpu` is 'cpu' where there is none."""

    gpu: str
    torch: str
    triton: str
    commit: str
    date: str
    python: str

    @classmethod
    def here(cls) -> 'Environment':
        cuda = torch.cuda.is_available()
        return cls(
            gpu=torch.cuda.get_device_name() if cuda else 'cpu',
            torch=torch.__version__,
            triton=triton.__version__,
            commit=_commit(),
            date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            python=platform.python_version(),
        )

    @property
    def tag(self) -> str:
        """'h200_pt215_tr39': the part of a file name that must never be mixed."""
        name = re.sub(r'^(nvidia|amd)\s+', '', self.gpu.lower())
        name = re.sub(r'[^a-z0-9]+', '-', name).strip('-')
        return f'{name}_pt{_short(self.torch)}_tr{_short(self.triton)}'


def _short(version: str) -> str:
    return ''.join(version.split('.')[:2])


def _commit() -> str:
    command = ['git', 'describe', '--always', '--dirty', '--exclude', '*']
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return 'unknown'
    return found.stdout.strip() or 'unknown'


def speed_name(dtype: str, layout: str, tag: str, suffix: str = '') -> str:
    """'group-norm_bf16_nhwc_h200_pt215_tr39.csv'; a suffix marks a partial run."""
    return f'{SPEED}_{dtype}_{layout}_{tag}{suffix}.csv'


def host_name(tag: str, scope: str) -> str:
    """'host-cost_up-to-launch_cpu_pt215_tr39.csv'."""
    return f'{HOST}_{scope}_{tag}.csv'


def memory_name(torch_version: str, suffix: str = '') -> str:
    """'detector-memory_pt215.csv': counted, so no GPU has a part in it."""
    return f'{MEMORY}_pt{_short(torch_version)}{suffix}.csv'


def counts_name(device: str, here: 'Environment', suffix: str = '') -> str:
    """'kernel-counts_modelled-h100_pt215_tr39.csv': times of a model of that GPU."""
    versions = f'pt{_short(here.torch)}_tr{_short(here.triton)}'
    return f'{COUNTS}_modelled-{device.lower()}_{versions}{suffix}.csv'


def detector_name(
    model: str, dtype: str, layout: str, tag: str, suffix: str = ''
) -> str:
    """'detector_r50_bf16_nhwc_h200_pt215_tr39.csv'."""
    return f'{DETECTOR}_{model}_{dtype}_{layout}_{tag}{suffix}.csv'


def fusion_path(what: str) -> Path:
    """'fusion-hosts.csv': compared on a CPU, with the torch implementation."""
    return RESULTS / f'{FUSION}-{what}.csv'


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[dict]) -> None:
    """Writes a CSV file whole, so that an interrupted run leaves a readable one."""
    # Not by the workbench, which needs more than torch: the op is measured without it.
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.part')
    with partial.open('w', newline='') as file:
        writer = csv.DictWriter(file, columns, lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, path)


def earlier_rows(path: Path, here: 'Environment') -> list[dict]:
    """What an interrupted run of the same source on the same machine has measured.

    Rows as they were written: numbers are numbers again.
    """
    if not path.is_file():
        return []
    same = {name: getattr(here, name) for name in ('gpu', 'torch', 'triton', 'commit')}
    rows = read_rows(path)
    return [
        {name: text if name in same else _number(text) for name, text in row.items()}
        for row in rows
        if all(row[name] == same[name] for name in same)
    ]


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, as text."""
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def rounded(value: float) -> float:
    """Five significant digits: more than any timing here can tell apart."""
    return float(f'{value:.5g}')

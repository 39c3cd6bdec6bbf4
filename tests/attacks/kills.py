"""Trainings killed at seeded moments, each resumed and compared with a whole one.

    python -m tests.attacks.kills [--kills 50] [--seed 0]

A kill survives if `--resume` ends with the bits of the run that nothing has stopped,
in weights and optimizer, and with its score of every validation.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import ValLoop

from gn_det.workbench.datasets import ShapesSpec, generate_shapes
from gn_det.workbench.report import write_report
from gn_det.workbench.report.run_log import read_run_log
from gn_det.workbench.runtime import runner
from gn_det.workbench.runtime.loops import ResumableEpochLoop
from gn_det.workbench.runtime.saving import AtomicLocalBackend
from tests.attacks import runs

# What is called at the beginning of a moment's kind, and how often a run does.
KINDS = {
    'startup': (runner, 'build_runner', 1),
    'iteration': (ResumableEpochLoop, 'run_iter', 6),
    'checkpoint': (AtomicLocalBackend, 'put', 3),
    'validation': (ValLoop, 'run', 2),
    'report': (sys.modules[write_report.__module__], 'write_report', 1),
}
LAST = 'epoch_2.pth'


def announce(pipe: int) -> None:
    """Write a byte into a pipe before and after each call: 2n and 2n + 1 for kind n."""
    for place, (owner, name, _) in enumerate(KINDS.values()):
        call = getattr(owner, name)

        def announced(*args: Any, place: int = place, call=call, **kwargs: Any) -> Any:
            os.write(pipe, bytes([2 * place]))
            try:
                return call(*args, **kwargs)
            finally:
                os.write(pipe, bytes([2 * place + 1]))

        setattr(owner, name, announced)


def start(work_dir: Path, data_root: Path) -> tuple[runs.Run, int]:
    """A training, and the pipe it announces its moments in."""
    read, write = os.pipe()
    run = runs.start(work_dir, data_root, before=lambda: announce(write))
    os.close(write)
    return run, read


def train(work_dir: Path, data_root: Path) -> dict[str, float]:
    """Train to the end; how long the last moment of each kind took, in seconds."""
    run, pipe = start(work_dir, data_root)
    times = {}
    while byte := os.read(pipe, 1):
        times[byte[0]] = time.monotonic()
    os.close(pipe)
    if run.wait() != 0:
        raise RuntimeError(run.said())
    return {kind: times[2 * n + 1] - times[2 * n] for n, kind in enumerate(KINDS)}


def kill(
    work_dir: Path, data_root: Path, kind: str, number: int, delay_s: float
) -> bool:
    """Kill a training a while after the n-th beginning of a kind; False if it ended."""
    run, pipe = start(work_dir, data_root)
    begins = 2 * list(KINDS).index(kind)
    while number >= 0 and (byte := os.read(pipe, 1)):
        number -= byte[0] == begins
    time.sleep(delay_s)
    os.kill(run.pid, signal.SIGKILL)
    os.close(pipe)
    return run.wait() == -signal.SIGKILL


def scores(work_dir: Path) -> dict[int, float]:
    """AP of each validation."""
    return {r['step']: r['coco/bbox_mAP'] for r in read_run_log(work_dir).val}


def survives(work_dir: Path, data_root: Path, whole: Path) -> bool:
    """Resume, and compare with the whole run."""
    run = runs.start(work_dir, data_root, 'auto')
    if run.wait() != 0:
        print(run.said()[-2000:])
        return False
    one, two = runs.states(whole / LAST), runs.states(work_dir / LAST)
    return (
        one.keys() == two.keys()
        and all(torch.equal(one[name], two[name]) for name in one)
        and scores(whole) == scores(work_dir)
        and (work_dir / 'report.html').is_file()
        and not list(work_dir.glob('*partial*'))
    )


def attack(data_root: Path, folder: Path, kills: int, seed: int) -> dict[str, Counter]:
    """Kill so many trainings; what became of them by kind."""
    whole = folder / 'whole'
    lasts = train(whole, data_root)
    draws = random.Random(seed)
    found = {kind: Counter() for kind in KINDS}
    for index in range(kills):
        kind = list(KINDS)[index % len(KINDS)]
        number = draws.randrange(KINDS[kind][2])
        delay_s = draws.random() * lasts[kind]
        work_dir = folder / f'kill{index}'
        killed = kill(work_dir, data_root, kind, number, delay_s)
        equal = survives(work_dir, data_root, whole)
        found[kind].update(tried=1, killed=killed, equal=equal)
        print(
            f'{index + 1}: {kind} {number + 1}, {delay_s:.2f} s after its beginning: '
            f'{"equal" if equal else "DIFFERENT"}',
            flush=True,
        )
        if equal:
            shutil.rmtree(work_dir)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--kills', type=int, default=50)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data_root = Path(folder, 'shapes')
        spec = ShapesSpec(num_train=6, num_val=2, height=64, width=64)
        generate_shapes(data_root, spec)
        found = attack(data_root, Path(folder), args.kills, args.seed)
    columns = ('tried', 'killed', 'equal')
    print(f'{"moment":12}' + ''.join(f'{column:>8}' for column in columns))
    total = sum(found.values(), Counter())
    for kind, counts in {**found, 'all': total}.items():
        print(f'{kind:12}' + ''.join(f'{counts[column]:>8}' for column in columns))
    sys.exit(total['equal'] != total['tried'])


if __name__ == '__main__':
    main()

"""Train what the paper's claims need; a run that was finished before is not repeated.

    python studies/run.py                       # everything; README.md says how long
    python studies/run.py --claim a --seeds 0   # a part of it

Every training run writes a record of its own into WORK_DIR/results when it ends, so
Ctrl-C loses only the runs under way. `python studies/figures.py WORK_DIR/results` makes
tables and figures.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gn_det.workbench.errors import UserError
from gn_det_cli.process import report_errors
from studies.claims import CLAIMS
from studies.plan import Job, logs, plan, results
from studies.records import is_done
from studies.training import start_worker, train

WORK_DIR = Path('work_dirs/studies')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--claim', nargs='+', choices=list(CLAIMS), default=list(CLAIMS)
    )
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--jobs', type=int, default=2, help='runs side by side')
    parser.add_argument(
        '--device',
        choices=['auto', 'cpu', 'cuda'],
        default='auto',
        help='auto takes a GPU where there is one',
    )
    parser.add_argument('--work-dir', type=Path, default=WORK_DIR)
    parser.add_argument(
        '--quick',
        action='store_true',
        help='see in a minute that everything runs; the figures mean nothing',
    )
    args = parser.parse_args()
    if args.jobs < 1:
        parser.error('--jobs must be at least 1')
    return args


def choose_device(device: str) -> None:
    """Hide the GPU or insist on it; the processes started later inherit it.

    Raises:
        UserError: if there is no GPU and one is asked for.
    """
    if device == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    elif device == 'cuda':
        import torch

        if not torch.cuda.is_available():
            raise UserError('--device cuda: no GPU was found; leave --device out')


def run_all(jobs: Sequence[Job], side_by_side: int, work_dir: Path) -> list[str]:
    """Train every job; returns a line about each that failed."""
    failed = []
    # Not a fork: the children shall be free of this process's threads and state.
    context = multiprocessing.get_context('spawn')
    pool = ProcessPoolExecutor(side_by_side, context, start_worker, (work_dir,))
    try:
        waiting = {pool.submit(train, job, work_dir): job for job in jobs}
        for future in tqdm(as_completed(waiting), total=len(jobs), unit='run'):
            job = waiting[future]
            try:
                figures, seconds = future.result()
            except BrokenProcessPool as error:
                raise UserError(
                    f'a process was killed; see {logs(work_dir)} and run the same '
                    'command again: finished runs are kept'
                ) from error
            except Exception as error:
                failed.append(f'{job.name}: {error!r}')
                continue
            found = ', '.join(f'{name} {value:.1f}' for name, value in figures.items())
            tqdm.write(f'{job.name}: {found} ({seconds:.0f} s)', file=sys.stderr)
    finally:
        # After an error or Ctrl-C the runs under way have nothing to give.
        if any(not future.done() for future in waiting):
            for child in multiprocessing.active_children():
                child.terminate()
        pool.shutdown(cancel_futures=True)
    return failed


@report_errors()
def main() -> None:
    args = parse_args()
    choose_device(args.device)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    jobs = plan(args.claim, args.seeds, args.quick)
    todo = [job for job in jobs if not is_done(results(args.work_dir), job)]
    tqdm.write(
        f'{len(jobs) - len(todo)} of {len(jobs)} runs are done; records in '
        f'{results(args.work_dir)}',
        file=sys.stderr,
    )
    # One thread a run, for libraries that read it when they load as well.
    os.environ.update(OMP_NUM_THREADS='1', MKL_NUM_THREADS='1')
    failed = run_all(todo, args.jobs, args.work_dir)
    if failed:
        raise UserError(
            f'{len(failed)} runs failed, the first {failed[0]}; see '
            f'{logs(args.work_dir)} and run the same command again: finished runs are '
            'kept'
        )


if __name__ == '__main__':
    main()

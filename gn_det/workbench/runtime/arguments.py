"""The flags `tools/train.py` and `tools/test.py` share, as mmdet's tools have them."""

from __future__ import annotations

import argparse
import os

from mmengine.config import DictAction

from gn_det.workbench.errors import UserError
from gn_det.workbench.loading.files import trust_local_files


class CfgOptions(DictAction):
    """mmengine's `KEY=VALUE` pairs; what is none is the user's mistake.

    mmengine drops the spaces of a value and splits it at commas. `data_root`, also that
    of one dataset, is a path and is taken as it is.
    """

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        roots, others = {}, []
        for pair in values:
            key, equals, value = pair.partition('=')
            if not equals:
                raise UserError(f'{option_string}: expected KEY=VALUE, got {pair!r}')
            if key.rpartition('.')[2] == 'data_root' and value != 'None':
                roots[key] = value
            else:
                others.append(pair)
        try:
            super().__call__(parser, namespace, others, option_string)
        except AssertionError as error:
            raise UserError(f'{option_string}: {error}') from error
        setattr(namespace, self.dest, getattr(namespace, self.dest) | roots)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--work-dir`, `--cfg-options`, `--channels-last` and the launcher's flags."""
    parser.add_argument('--work-dir', help='folder for logs, checkpoints and results')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        metavar='KEY=VALUE',
        help='override settings of the config; lists as key="[a,b]" or key=a,b. '
        'data_root=PATH moves the data of all dataloaders and evaluators',
    )
    parser.add_argument(
        '--channels-last',
        action='store_true',
        help='keep the model and its maps in channels-last memory format',
    )
    parser.add_argument(
        '--trust',
        action='store_true',
        help='load checkpoint files of this machine with full rights, which lets them '
        'run code; for files of your own',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes of a distributed run were started',
    )
    # torch.distributed.launch passes it; torchrun sets LOCAL_RANK instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def apply_common_arguments(args: argparse.Namespace) -> None:
    """Do what `--trust` and `--local_rank` ask for before a config is loaded."""
    if args.trust:
        trust_local_files()
    # mmengine looks for the local rank there.
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))

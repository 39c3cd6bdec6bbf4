"""Compile the kernels of a config's training ahead of it; into Triton's cache."""

from __future__ import annotations

import argparse
import os
import re
import time

from gn_det_cli.arguments import add_config
from gn_det_cli.process import quiet_imports


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Config, layout and precision, and for which GPU."""
    add_config(parser)
    parser.add_argument('--amp', action='store_true', help='as of train')
    parser.add_argument('--channels-last', action='store_true', help='as of train')
    parser.add_argument(
        '--arch',
        metavar='sm_NN',
        help='of the GPU that will train, as sm_90; default: the one that is here. A '
        'machine with the same Triton finds the kernels in a copy of the cache',
    )
    parser.add_argument(
        '--sms',
        type=int,
        help="the GPU's number of multiprocessors, with --arch: 132 for H100 and H200",
    )
    parser.add_argument(
        '--jobs',
        type=int,
        default=len(os.sched_getaffinity(0)),
        help='processes; default: as many as processors, %(default)s',
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Compile."""
    with quiet_imports():
        from tqdm import tqdm

        from gn_det.ops.precompile import compile_kernels
        from gn_det.workbench.errors import UserError
        from gn_det.workbench.inputs.config import load_config
        from gn_det.workbench.runtime import runner
        from gn_det.workbench.runtime.arguments import read_options
        from gn_det.workbench.warmup import kernels_of_config
    if args.jobs < 1:
        raise UserError(f'--jobs: expected a positive number, got {args.jobs}')
    capability, sms = _gpu(args)
    cfg = load_config(args.config, read_options(args.cfg_options))
    if args.channels_last:
        runner.enable_channels_last(cfg)
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
    kernels = sorted(kernels_of_config(cfg, sms), key=str)
    start = time.monotonic()
    compiling = compile_kernels(kernels, capability, min(args.jobs, len(kernels)))
    for _ in tqdm(compiling, total=len(kernels), desc='kernels', unit='kernel'):
        pass
    took = time.monotonic() - start
    print(f'{len(kernels)} kernels for sm_{capability} in {took:.0f} s')


def _gpu(args: argparse.Namespace) -> tuple[int, int]:
    """Compute capability, such as 90, and number of multiprocessors."""
    import torch

    from gn_det.workbench.errors import UserError

    if args.arch is None and args.sms is None:
        if not torch.cuda.is_available():
            raise UserError(
                'warmup: no CUDA device here; name the GPU that will train with --arch '
                'and --sms, for an H100 --arch sm_90 --sms 132'
            )
        found = torch.cuda.get_device_properties(0)
        return found.major * 10 + found.minor, found.multi_processor_count
    number = re.fullmatch(r'sm_(\d{2,3})', args.arch or '')
    if number is None or not args.sms or args.sms < 1:
        raise UserError(
            'warmup: --arch and --sms go together, as in --arch sm_90 --sms 132; got '
            f'--arch {args.arch} --sms {args.sms}'
        )
    return int(number[1]), args.sms

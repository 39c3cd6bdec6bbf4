"""Train a detector, with the flags of mmdet's tool."""

from __future__ import annotations

import argparse

from gn_det_cli.arguments import add_config, add_group_norm, add_run
from gn_det_cli.process import quiet_imports


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Config, resuming, batch size and precision."""
    add_config(parser)
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the batch size (linear rule), and stretch '
        'schedules counted in iterations',
    )
    parser.add_argument(
        '--load-from',
        metavar='NAME|CHECKPOINT',
        help='start from the weights of a detector: a model of the zoo, whose weights '
        'are downloaded, a file or an address; heads for other classes start anew. '
        'load_from of a config is the same',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint; without a name from the newest whole one in '
        'the work directory',
    )
    add_group_norm(parser)
    add_run(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Train."""
    with quiet_imports():
        from gn_det.workbench.runtime import runner
        from gn_det.workbench.runtime.arguments import run_config
        from gn_det.workbench.runtime.distributed import close_distributed
    cfg = run_config(args, trains=True)
    if args.load_from is not None:
        cfg.load_from = args.load_from
    if args.amp:
        runner.enable_amp(cfg)
    if args.auto_scale_lr or (cfg.get('auto_scale_lr') or {}).get('enable', False):
        runner.enable_lr_scaling(cfg)
    runner.set_resume(cfg, args.resume)
    runner.run_training(cfg, verbose=args.verbose)
    close_distributed()

"""Train a detector: `python tools/train.py CONFIG`, with the flags of mmdet's tool."""

from __future__ import annotations

import argparse

from gn_det.workbench.errors import report_errors
from gn_det.workbench.inputs.config import load_config
from gn_det.workbench.runtime.arguments import (
    add_common_arguments,
    apply_common_arguments,
)
from gn_det.workbench.runtime.distributed import close_distributed
from gn_det.workbench.runtime.runner import (
    enable_amp,
    enable_channels_last,
    enable_lr_scaling,
    run_training,
    set_resume,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a detector')
    parser.add_argument('config', help='config file')
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the batch size (linear rule), and stretch '
        'schedules counted in iterations',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint; without a name from the newest whole one in '
        'the work directory',
    )
    add_common_arguments(parser)
    return parser.parse_args()


@report_errors
def main() -> None:
    args = parse_args()
    apply_common_arguments(args)
    cfg = load_config(args.config, args.cfg_options, args.work_dir)
    cfg.launcher = args.launcher
    if args.channels_last:
        enable_channels_last(cfg)
    if args.amp:
        enable_amp(cfg)
    if args.auto_scale_lr or (cfg.get('auto_scale_lr') or {}).get('enable', False):
        enable_lr_scaling(cfg)
    set_resume(cfg, args.resume)
    run_training(cfg)
    close_distributed()


if __name__ == '__main__':
    main()

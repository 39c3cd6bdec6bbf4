"""Evaluate a detector: `python tools/test.py CONFIG CHECKPOINT`, with mmdet's flags."""

from __future__ import annotations

import argparse

from gn_det.runtime import UserError, report_errors
from gn_det.runtime.arguments import add_common_arguments, export_local_rank
from gn_det.runtime.config import load_config
from gn_det.runtime.runner import run_test, show_predictions
from gn_det.runtime.tta import enable_tta


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Test and evaluate a detector')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or address')
    parser.add_argument('--out', help='dump the predictions to this .pkl file')
    parser.add_argument('--show', action='store_true', help='show the predictions')
    parser.add_argument(
        '--show-dir', help='save painted images to WORK_DIR/TIMESTAMP/SHOW_DIR'
    )
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds between shown images'
    )
    parser.add_argument('--tta', action='store_true', help='test with flipped images')
    add_common_arguments(parser)
    return parser.parse_args()


@report_errors
def main() -> None:
    args = parse_args()
    export_local_rank(args)
    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out: expected a .pkl file, got {args.out}')
    cfg = load_config(args.config, args.cfg_options, args.work_dir)
    cfg.launcher = args.launcher
    cfg.load_from = args.checkpoint
    if args.show or args.show_dir:
        show_predictions(cfg, args)
    if args.tta:
        enable_tta(cfg)
    run_test(cfg, args.out)


if __name__ == '__main__':
    main()

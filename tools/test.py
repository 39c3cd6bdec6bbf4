"""Evaluate a detector: `python tools/test.py CONFIG CHECKPOINT`, with mmdet's flags."""

from __future__ import annotations

import argparse
import os

from mmengine.dist import is_main_process

from gn_det.workbench.errors import UserError, report_errors
from gn_det.workbench.evaluation.ap_table import ap_table, class_table, show
from gn_det.workbench.evaluation.coco_figures import EVALUATORS
from gn_det.workbench.evaluation.evaluators import (
    evaluated_file,
    only_formats,
    remove_old_results,
    result_files,
    set_up_evaluation,
)
from gn_det.workbench.evaluation.published import Published, published_figures
from gn_det.workbench.inputs.config import load_config
from gn_det.workbench.runtime.arguments import (
    add_common_arguments,
    apply_common_arguments,
)
from gn_det.workbench.runtime.distributed import close_distributed
from gn_det.workbench.runtime.runner import (
    enable_channels_last,
    run_test,
    show_predictions,
)
from gn_det.workbench.runtime.tta import enable_tta


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
    parser.add_argument('--classwise', action='store_true', help='AP of each class')
    parser.add_argument(
        '--format-only',
        action='store_true',
        help='only write the results as COCO JSON, for a test server',
    )
    parser.add_argument(
        '--evaluator', choices=EVALUATORS, help=f'default: {EVALUATORS[0]}'
    )
    add_common_arguments(parser)
    return parser.parse_args()


@report_errors
def main() -> None:
    args = parse_args()
    apply_common_arguments(args)
    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out: expected a .pkl file, got {args.out}')
    cfg = load_config(args.config, args.cfg_options, args.work_dir)
    cfg.launcher = args.launcher
    if args.channels_last:
        enable_channels_last(cfg)
    cfg.load_from = args.checkpoint
    if args.show or args.show_dir:
        show_predictions(cfg, args)
    if args.tta:
        enable_tta(cfg)
    set_up_evaluation(cfg, args.classwise, args.format_only, args.evaluator)
    # Now: building a model may change its config, and people edit files meanwhile.
    ann_file = evaluated_file(cfg)
    published = published_figures(cfg.filename, ann_file, cfg) if ann_file else ''
    before = result_files(cfg)
    figures = run_test(cfg, args.out)
    if is_main_process():
        if ann_file and not only_formats(cfg):
            show_figures(figures, os.path.basename(ann_file), published)
        for path in remove_old_results(cfg, before):
            print(f'results are in {path}')
    close_distributed()


def show_figures(
    figures: dict[str, float], title: str, published: Published | str
) -> None:
    if any('_mAP/' in key for key in figures):
        show(class_table(figures))
    beside = published if isinstance(published, Published) else None
    show(ap_table(figures, title, beside))
    if beside is None:
        print(published)


if __name__ == '__main__':
    main()

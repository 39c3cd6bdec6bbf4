"""Test and evaluate a detector, with the flags of mmdet's tool."""

from __future__ import annotations

import argparse
import os

from gn_det_cli.arguments import (
    add_config,
    add_evaluator,
    add_group_norm,
    add_run,
)
from gn_det_cli.process import quiet_imports


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Config, checkpoint, and what becomes of the predictions."""
    add_config(parser)
    parser.add_argument(
        'checkpoint', metavar='CHECKPOINT', help='checkpoint file or address'
    )
    parser.add_argument('--out', help='dump the predictions to this .pkl file')
    parser.add_argument('--show', action='store_true', help='show the predictions')
    parser.add_argument(
        '--show-dir', help='save painted images to WORK_DIR/TIMESTAMP/SHOW_DIR'
    )
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds between shown images'
    )
    parser.add_argument('--tta', action='store_true', help='test with flipped images')
    parser.add_argument(
        '--format-only',
        action='store_true',
        help='only write the results as COCO JSON, for a test server',
    )
    add_evaluator(parser)
    add_group_norm(parser)
    add_run(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Test, and print the scores beside the published ones."""
    with quiet_imports():
        from mmengine.dist import is_main_process

        from gn_det.workbench.errors import UserError
        from gn_det.workbench.evaluation import evaluators
        from gn_det.workbench.evaluation.published import published_scores
        from gn_det.workbench.runtime import runner
        from gn_det.workbench.runtime.arguments import run_config
        from gn_det.workbench.runtime.distributed import close_distributed
        from gn_det.workbench.runtime.tta import enable_tta
    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out: expected a .pkl file, got {args.out}')
    cfg = run_config(args)
    cfg.load_from = args.checkpoint
    if args.show or args.show_dir:
        runner.show_predictions(cfg, args)
    if args.tta:
        enable_tta(cfg)
    evaluators.set_up_evaluation(cfg, args.classwise, args.format_only, args.evaluator)
    # Now: building a model may change its config, and people edit files meanwhile.
    ann_file = evaluators.evaluated_file(cfg)
    published = published_scores(cfg.filename, ann_file, cfg) if ann_file else ''
    before = evaluators.result_files(cfg)
    scores = runner.run_test(cfg, args.out, verbose=args.verbose)
    if is_main_process():
        if ann_file and not evaluators.only_formats(cfg):
            _show_scores(scores, os.path.basename(ann_file), published)
        for path in evaluators.remove_old_results(cfg, before):
            print(f'results are in {path}')
    close_distributed()


def _show_scores(scores: dict, title: str, published: object) -> None:
    from gn_det.workbench.evaluation.ap_table import ap_table, class_table, show
    from gn_det.workbench.evaluation.published import Published

    if any('_mAP/' in key for key in scores):
        show(class_table(scores))
    beside = published if isinstance(published, Published) else None
    show(ap_table(scores, title, beside))
    if beside is None:
        print(published)

"""Evaluate a COCO results file made elsewhere."""

from __future__ import annotations

import argparse
import sys

from gn_det_cli.arguments import add_evaluator
from gn_det_cli.process import quiet_imports


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Results, truth, and what to evaluate."""
    parser.add_argument('results', help='JSON list of detections')
    parser.add_argument('annotations', help='COCO annotation file')
    parser.add_argument(
        '--iou-type',
        nargs='+',
        choices=['bbox', 'segm'],
        help='what to evaluate; default: what the detections have',
    )
    add_evaluator(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Evaluate, and print the table."""
    with quiet_imports():
        from gn_det.workbench.evaluation.ap_table import ap_table, class_table, show
        from gn_det.workbench.evaluation.coco_scores import Comparison
        from gn_det.workbench.inputs.annotations import (
            check_annotations,
            check_results,
            kinds_of,
            read_results,
        )
    results = read_results(args.results)
    kinds = args.iou_type or kinds_of(results)
    truth, odd = check_annotations(args.annotations, kinds)
    for note in odd:
        print(f'warning: {note}', file=sys.stderr)
    check_results(args.results, results, truth, kinds)
    if not results:
        print(f'{args.results} has no detection: every AP is 0', file=sys.stderr)
    scores = {}
    for kind in kinds:
        found = Comparison(truth, results, kind).scores(args.evaluator)
        scores |= {f'coco/{kind}_{name}': v for name, v in found.values.items()}
        scores |= {f'coco/{kind}_mAP/{name}': v for name, v in found.class_ap.items()}
    if args.classwise:
        show(class_table(scores))
    show(ap_table(scores, args.results))

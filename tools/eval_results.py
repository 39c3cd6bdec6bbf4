"""Evaluate COCO result files: `python tools/eval_results.py RESULTS ANNOTATIONS`."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from gn_det.errors import report_errors
from gn_det.evaluation.ap_table import KINDS, ap_table, class_table
from gn_det.evaluation.coco_figures import EVALUATORS, coco_figures
from gn_det.evaluation.result_file import load_results, load_truth


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('results', help='JSON list of detections')
    parser.add_argument('annotations', help='COCO annotation file')
    parser.add_argument(
        '--iou-type',
        nargs='+',
        choices=list(KINDS),
        help='what to evaluate; default: what the detections have',
    )
    parser.add_argument('--classwise', action='store_true', help='AP of each class')
    parser.add_argument(
        '--evaluator', choices=EVALUATORS, help=f'default: {EVALUATORS[0]}'
    )
    return parser.parse_args()


@report_errors
def main() -> None:
    args = parse_args()
    truth = load_truth(args.annotations, args.iou_type or ())
    results, kinds = load_results(args.results, truth, args.iou_type)
    if not results:
        print(f'{args.results} has no detection: every AP is 0', file=sys.stderr)
    figures = {}
    for kind in kinds:
        found = coco_figures(truth, results, kind, evaluator=args.evaluator)
        figures |= {f'coco/{kind}_{name}': v for name, v in found.values.items()}
        figures |= {f'coco/{kind}_mAP/{name}': v for name, v in found.class_ap.items()}
    console = Console()
    if args.classwise:
        console.print(class_table(figures))
    console.print(ap_table(figures, args.results))


if __name__ == '__main__':
    main()

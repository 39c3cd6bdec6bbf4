"""Evaluate COCO result files: `python tools/eval_results.py RESULTS ANNOTATIONS`."""

from __future__ import annotations

import argparse
import sys

from gn_det.workbench.errors import report_errors
from gn_det.workbench.evaluation.ap_table import KINDS, ap_table, class_table, show
from gn_det.workbench.evaluation.coco_figures import EVALUATORS, coco_figures
from gn_det.workbench.evaluation.result_file import (
    check_results,
    kinds_of,
    load_truth,
    read_results,
)


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
    results = read_results(args.results)
    kinds = args.iou_type or kinds_of(results)
    truth = load_truth(args.annotations, kinds)
    check_results(args.results, results, truth, kinds)
    if not results:
        print(f'{args.results} has no detection: every AP is 0', file=sys.stderr)
    figures = {}
    for kind in kinds:
        found = coco_figures(truth, results, kind, evaluator=args.evaluator)
        figures |= {f'coco/{kind}_{name}': v for name, v in found.values.items()}
        figures |= {f'coco/{kind}_mAP/{name}': v for name, v in found.class_ap.items()}
    if args.classwise:
        show(class_table(figures))
    show(ap_table(figures, args.results))


if __name__ == '__main__':
    main()

"""Generate shapes, train a small GN Mask R-CNN on them, evaluate it, report."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from gn_det.workbench.errors import UserError
from gn_det.workbench.evaluation.ap_table import percent
from gn_det.workbench.report import write_report
from gn_det.workbench.report.run_log import read_test_scores
from gn_det.workbench.runtime.resuming import find_resume_checkpoint
from gn_det_cli.process import report_errors

CONFIG = 'mask-rcnn_r18_fpn_gn-all_shapes'
# A run below this has not learned what the quickstart is there to show.
REQUIRED_AP = 0.50
# Removed first, so that what is there afterwards comes from this run.
OUTPUTS = ('metrics.json', 'report.html')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', default='data/shapes', help='folder of the shapes')
    parser.add_argument('--work-dir', default='work_dirs/quickstart')
    return parser.parse_args()


def run(*arguments: str | Path) -> None:
    command = [*map(str, arguments)]
    print(f'\n$ gn-det {" ".join(command)}', flush=True)
    done = subprocess.run([sys.executable, '-m', 'gn_det', *command], check=False)
    if done.returncode:
        raise UserError(f'gn-det {command[0]} ended with exit code {done.returncode}')


@report_errors()
def main() -> None:
    args = parse_args()
    work_dir = Path(args.work_dir)
    start = time.monotonic()
    run('shapes', args.data)
    for name in OUTPUTS:
        (work_dir / name).unlink(missing_ok=True)
    options = ('--cfg-options', f'data_root={args.data}')
    run('train', CONFIG, '--work-dir', work_dir, *options)
    checkpoint = find_resume_checkpoint(work_dir)
    test_dir = work_dir / 'test'
    run('test', CONFIG, checkpoint, '--work-dir', test_dir, *options)
    seconds = round(time.monotonic() - start, 1)

    scores = read_test_scores(test_dir)
    metrics = {
        'bbox_mAP': scores['coco/bbox_mAP'],
        'segm_mAP': scores['coco/segm_mAP'],
        'seconds': seconds,
    }
    (work_dir / 'metrics.json').write_text(json.dumps(metrics, indent=1) + '\n')
    write_report(work_dir)
    print(f'{seconds:.0f} s; see {" and ".join(OUTPUTS)} in {work_dir}')
    if min(metrics['bbox_mAP'], metrics['segm_mAP']) < REQUIRED_AP:
        raise UserError(
            f'box AP {percent(metrics["bbox_mAP"])} and mask AP '
            f'{percent(metrics["segm_mAP"])}: both should reach '
            f'{percent(REQUIRED_AP)}; see {work_dir}/report.html'
        )


if __name__ == '__main__':
    main()

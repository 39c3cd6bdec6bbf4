"""Generate shapes, train a small GN Mask R-CNN on them, evaluate it, draw pictures."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from pycocotools.coco import COCO

from gn_det.workbench.errors import UserError
from gn_det.workbench.evaluation.curves import draw_curves
from gn_det.workbench.evaluation.run_log import read_run_log, read_test_figures
from gn_det.workbench.evaluation.sheet import draw_sheet, load_predictions
from gn_det.workbench.inputs.checkpoints import find_resume_checkpoint
from gn_det.workbench.inputs.config import load_config
from gn_det_cli.process import report_errors

CONFIG = 'mask-rcnn_r18_fpn_gn-all_shapes'
# A run below this has not learned what the quickstart is there to show.
REQUIRED_AP = 0.50
IMAGES_ON_SHEET = 12
# Removed first, so that what is there afterwards comes from this run.
OUTPUTS = ('metrics.json', 'curves.png', 'predictions.png')


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
    dumped = work_dir / 'predictions.pkl'
    test_dir = work_dir / 'test'
    run('test', CONFIG, checkpoint, '--work-dir', test_dir, '--out', dumped, *options)
    seconds = round(time.monotonic() - start, 1)

    figures = read_test_figures(test_dir)
    metrics = {
        'bbox_mAP': figures['coco/bbox_mAP'],
        'segm_mAP': figures['coco/segm_mAP'],
        'seconds': seconds,
    }
    (work_dir / 'metrics.json').write_text(json.dumps(metrics, indent=1) + '\n')
    draw_curves(read_run_log(work_dir), work_dir / 'curves.png', 'quickstart')
    cfg = load_config(CONFIG, {'data_root': args.data})
    draw_sheet(
        load_predictions(dumped)[:IMAGES_ON_SHEET],
        COCO(cfg.test_evaluator.ann_file),
        cfg.metainfo.classes,
        work_dir / 'predictions.png',
    )
    print(f'{seconds:.0f} s; see {", ".join(OUTPUTS)} in {work_dir}')
    if min(metrics['bbox_mAP'], metrics['segm_mAP']) < REQUIRED_AP:
        raise UserError(
            f'box AP {metrics["bbox_mAP"]:.3f} and mask AP {metrics["segm_mAP"]:.3f}: '
            f'both should reach {REQUIRED_AP:.2f}; see {work_dir}/curves.png'
        )


if __name__ == '__main__':
    main()

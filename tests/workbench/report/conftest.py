"""Work directories as training leaves them, without the training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from gn_det.workbench.evaluation.coco_scores import IOU_THRESHOLDS, Comparison
from gn_det.workbench.evaluation.kept_scores import kept_scores, write_scores
from gn_det.workbench.inputs.config import load_config
from gn_det.workbench.report import write_report
from tests.running import CONFIG, REPOSITORY

LOG = """System environment:
    sys.platform: linux
    Python: 3.11.7
    GPU 0: NVIDIA H200
    PyTorch: 2.15.0
Runtime environment:
    seed: 0
2026/11/21 10:00:00 - mmengine - INFO - Packages: gn_det 0.1.0, mmdet 3.3.0
"""


def results_of(truth: COCO, kind: str, seed: int = 0) -> list[dict]:
    """Predictions for every image: the truth, moved by a few pixels at random."""
    random = np.random.default_rng(seed)
    found = []
    for ann in truth.dataset['annotations']:
        if ann['iscrowd']:
            continue
        x, y, width, height = ann['bbox']
        dx, dy = random.integers(-4, 5, size=2).tolist()
        one = dict(
            image_id=ann['image_id'],
            category_id=ann['category_id'],
            score=round(random.uniform(0.2, 1.0), 3),
            bbox=[x + dx, y + dy, width, height],
        )
        if kind == 'segm':
            mask = np.roll(truth.annToMask(ann), (dy, dx), axis=(0, 1))
            rle = coco_mask.encode(np.asfortranarray(mask))
            one['segmentation'] = {**rle, 'counts': rle['counts'].decode()}
        found.append(one)
    return found


@pytest.fixture(scope='session')
def truth(shapes: Path) -> COCO:
    return COCO(shapes / 'annotations/instances_val.json')


def write_run(
    work_dir: Path, data_root: Path, truth: COCO, seed: int = 0, **options: object
) -> Path:
    """A work directory of two epochs of three iterations, both evaluated."""
    logs = work_dir / '20261121_100000'
    (logs / 'vis_data').mkdir(parents=True)
    cfg = load_config(
        str(REPOSITORY / CONFIG),
        {'data_root': str(data_root), 'train_cfg.max_epochs': 2, **options},
    )
    cfg.dump(logs / 'vis_data/config.py')
    records = []
    for number in range(1, 7):
        epoch = -(-number // 3)
        records.append(
            dict(loss=4.0 / number, loss_mask=1.0 / number, lr=0.1, time=0.5,
                 data_time=0.05, memory=2048, epoch=epoch, iter=number, step=number)
        )  # fmt: skip
        if number % 3 == 0:
            ap = 0.2 * epoch + 0.01 * seed
            records.append(
                {'coco/bbox_mAP': ap, 'coco/bbox_mAP_l': -1.0, 'step': epoch,
                 'coco/segm_mAP': ap - 0.1}
            )  # fmt: skip
    lines = '\n'.join(map(json.dumps, records))
    (logs / 'vis_data/scalars.json').write_text(f'{lines}\n')
    (logs / '20261121_100000.log').write_text(LOG)
    kept = {}
    for kind, ap in (('bbox', 0.4), ('segm', 0.3)):
        comparison = Comparison(truth.dataset, results_of(truth, kind, seed), kind)
        one = kept_scores(comparison, comparison.scores(), IOU_THRESHOLDS)
        one.values['mAP'] = ap + 0.01 * seed
        kept[kind] = one
    write_scores(work_dir / 'val.scores.json', kept)
    return work_dir


@pytest.fixture
def make_run(tmp_path: Path, shapes: Path, truth: COCO) -> Callable[..., Path]:
    """Make a work directory of its own, which the test may change."""

    def make(name: str = 'run', data_root: Path = shapes, **more: object) -> Path:
        return write_run(tmp_path / name, data_root, truth, **more)

    return make


@pytest.fixture(scope='session')
def whole_report(
    tmp_path_factory: pytest.TempPathFactory, shapes: Path, truth: COCO
) -> Path:
    """The page of a finished run that lacks nothing; not to be changed."""
    work_dir = tmp_path_factory.mktemp('whole') / 'run'
    return write_report(write_run(work_dir, shapes, truth))

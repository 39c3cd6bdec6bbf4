"""Curves and sheets: what is drawn is what was given."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from rich.console import Console

from gn_det.workbench.datasets.shapes import CATEGORIES
from gn_det.workbench.evaluation.ap_table import ap_table
from gn_det.workbench.evaluation.curves import draw_curves
from gn_det.workbench.evaluation.run_log import RunLog
from gn_det.workbench.evaluation.sheet import draw_sheet


@pytest.mark.parametrize(
    'log',
    [
        RunLog(),
        RunLog(
            train=[dict(iter=10, loss=2.0, loss_mask=0.5), dict(iter=20, loss=1.0)],
            val=[{'step': 1, 'coco/bbox_mAP': 0.4, 'coco/segm_mAP': 0.3}],
        ),
    ],
    ids=['empty', 'short'],
)
def test_curves(tmp_path, log):
    draw_curves(log, tmp_path / 'curves.png')
    image = cv2.imread(str(tmp_path / 'curves.png'))
    assert image.std() > 5


def record(coco: COCO, root, image_id: int) -> dict:
    anns = coco.loadAnns(coco.getAnnIds(image_id, iscrowd=False))
    boxes = np.array([a['bbox'] for a in anns], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return dict(
        img_id=image_id,
        img_path=root / 'train' / coco.imgs[image_id]['file_name'],
        pred_instances=dict(
            bboxes=boxes,
            scores=np.full(len(anns), 0.9),
            labels=np.array([a['category_id'] - 1 for a in anns]),
            masks=[
                coco_mask.encode(np.asfortranarray(coco.annToMask(a))) for a in anns
            ],
        ),
    )


def test_sheet_shows_predictions_above_the_threshold_only(tmp_path, shapes):
    coco = COCO(shapes / 'annotations/instances_train.json')
    records = [record(coco, shapes, i) for i in list(coco.imgs)[:3]]
    sheets = {}
    for name, threshold in (('all', 0.5), ('none', 0.95)):
        path = tmp_path / f'{name}.png'
        draw_sheet(records, coco, CATEGORIES, path, threshold, columns=2)
        sheets[name] = cv2.imread(str(path)).astype(int)
    assert sheets['all'].shape == sheets['none'].shape
    width = sheets['all'].shape[1] // 4
    differs = np.abs(sheets['all'] - sheets['none']).max(axis=(0, 2)) > 40
    truth, prediction = differs[:width], differs[width : 2 * width]
    assert not truth.any()
    assert prediction.any()


def test_table_shows_a_dash_where_coco_has_no_figure():
    console = Console(record=True, width=100)
    console.print(ap_table({'coco/bbox_mAP': 0.5, 'coco/bbox_mAP_l': -1.0}, 'a title'))
    text = console.export_text()
    assert 'a title' in text
    assert '50.0' in text
    assert '–' in text
    assert 'mask' not in text

"""Real COCO images: a small model learns some by heart, the real one runs on all.

The sample holds a grey JPEG, an image without objects, crowd RLE among polygons and
category ids with gaps.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules

from gn_det.workbench.inputs.config import load_config
from gn_det.workbench.report.run_log import read_run_log
from gn_det.workbench.runtime.runner import build_runner
from tests.running import REPOSITORY, assert_success, run_tool

pytestmark = pytest.mark.coco

OVERFIT = 'configs/quickstart/mask-rcnn_r18_fpn_gn-all_coco-overfit.py'
R50 = 'configs/gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py'
TRAIN = 'annotations/instances_train2017.json'


def easy_images(coco: dict, count: int) -> list[int]:
    """Images of one to four objects, no crowd, each at least 3 % of the image."""
    chosen = []
    for image in coco['images']:
        anns = [a for a in coco['annotations'] if a['image_id'] == image['id']]
        size = image['width'] * image['height']
        if 1 <= len(anns) <= 4 and all(
            a['area'] >= 0.03 * size and not a['iscrowd'] for a in anns
        ):
            chosen.append(image['id'])
    return chosen[:count]


@pytest.fixture
def eight_images(coco_sample: Path, tmp_path: Path) -> Path:
    """A COCO folder of eight images; the images themselves are linked."""
    coco = json.loads((coco_sample / TRAIN).read_text())
    ids = set(easy_images(coco, 8))
    assert len(ids) == 8
    coco['images'] = [i for i in coco['images'] if i['id'] in ids]
    coco['annotations'] = [a for a in coco['annotations'] if a['image_id'] in ids]
    root = tmp_path / 'coco8'
    (root / 'annotations').mkdir(parents=True)
    (root / 'annotations/instances_overfit.json').write_text(json.dumps(coco))
    (root / 'train2017').symlink_to(coco_sample / 'train2017')
    return root


@pytest.mark.slow
def test_eight_images_are_learnt_by_heart(eight_images, tmp_path):
    work_dir = tmp_path / 'work'
    options = ('--cfg-options', f'data_root={eight_images}')
    assert_success(run_tool('train.py', OVERFIT, '--work-dir', work_dir, *options))
    figures = read_run_log(work_dir).val[-1]
    assert figures['coco/bbox_mAP'] >= 0.5
    assert figures['coco/segm_mAP'] >= 0.4


@pytest.fixture
def stand_in_backbone(tmp_path) -> str:
    """A file of random weights, for Detectron's ResNet-50-GN of the network."""
    register_all_modules()
    cfg = load_config(str(REPOSITORY / R50)).model.backbone
    cfg.pop('init_cfg')
    backbone = MODELS.build(cfg)
    path = tmp_path / 'backbone.pth'
    torch.save(backbone.state_dict(), path)
    return str(path)


@pytest.mark.slow
def test_the_real_model_trains_and_validates_on_real_images(
    coco_sample, stand_in_backbone, tmp_path
):
    """The unshrunk config on other data and weights: three steps, all of val."""
    options = {
        'data_root': str(coco_sample),
        'model.backbone.init_cfg.checkpoint': stand_in_backbone,
    }
    cfg = load_config(str(REPOSITORY / R50), options, str(tmp_path / 'work'))
    cfg.launcher = 'none'
    runner = build_runner(cfg, ('train', 'val'))
    runner._init_model_weights()
    optim_wrapper = runner.build_optim_wrapper(cfg.optim_wrapper)
    model = runner.model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    loader = iter(runner.build_dataloader(cfg.train_dataloader))
    for _ in range(3):
        losses = model.train_step(next(loader), optim_wrapper)
        assert all(torch.isfinite(value).all() for value in losses.values())
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert 'roi_head.mask_head.convs.0.gn.weight' in moved
    assert 'backbone.layer3.0.gn1.weight' in moved
    # Stem and first stage are frozen when fine-tuning.
    assert not {k for k in moved if k.startswith(('backbone.gn1', 'backbone.layer1'))}

    figures = runner.val()
    assert 0 <= figures['coco/bbox_mAP'] <= 1
    assert 0 <= figures['coco/segm_mAP'] <= 1

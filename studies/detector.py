"""The quickstart's Mask R-CNN on smaller shapes, with other norms in it."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

import gn_det  # noqa: F401  before mmdet: it supplies mmcv's operators
from gn_det.workbench.datasets import ShapesSpec, generate_shapes
from gn_det.workbench.inputs.config import load_config
from gn_det.workbench.runtime.runner import build_runner
from studies.claims import Case
from studies.norms import norm_cfg
from studies.plan import DetectorSize

ROOT = Path(__file__).resolve().parent.parent
_CONFIG = ROOT / 'configs/quickstart/mask-rcnn_r18_fpn_gn-all_shapes.py'
_FIGURES = {'box_ap': 'bbox_mAP', 'mask_ap': 'segm_mAP'}


def make_data(size: DetectorSize, folder: Path) -> Path:
    """The generated images in a folder under `folder`, drawn if not there yet."""
    root = folder / f'shapes-{size.side}-{size.num_train}-{size.num_val}'
    spec = ShapesSpec(
        num_train=size.num_train,
        num_val=size.num_val,
        height=size.side,
        width=size.side,
    )
    generate_shapes(root, spec)
    return root


def detector_config(
    case: Case, seed: int, size: DetectorSize, data_root: Path, work_dir: Path
) -> Config:
    """The quickstart's config with the norms of a case, for images of a size."""
    # Replaced, not merged: one norm's settings are not another's.
    backbone, heads = (
        dict(norm_cfg(name), _delete_=True) for name in (case.norm, case.heads)
    )
    cfg = load_config(
        str(_CONFIG),
        {
            'data_root': str(data_root),
            'model.backbone.norm_cfg': backbone,
            # mmdet would put a backbone's BN into evaluation mode.
            'model.backbone.norm_eval': False,
            'model.neck.norm_cfg': heads,
            'model.roi_head.bbox_head.norm_cfg': heads,
            'model.roi_head.mask_head.norm_cfg': heads,
            'train_dataloader.batch_size': case.batch,
            'train_cfg.max_epochs': size.epochs,
            # Once, after the last epoch.
            'train_cfg.val_interval': size.epochs,
            'param_scheduler.1.end': size.epochs,
            'param_scheduler.1.T_max': size.epochs,
            'default_hooks.checkpoint': None,
            'default_hooks.logger.interval': 20,
            'randomness.seed': seed,
            'launcher': 'none',
        },
        str(work_dir),
    )
    for split in ('train', 'val', 'test'):
        for step in cfg[f'{split}_dataloader'].dataset.pipeline:
            if step.type == 'Resize':
                step.scale = (size.side, size.side)
    return cfg


def train_detector(
    case: Case, seed: int, size: DetectorSize, data_dir: Path, work_dir: Path
) -> dict[str, float]:
    """Train once; returns `box_ap` and `mask_ap` after the last epoch, in per cent.

    Args:
        case: the norms and the batch.
        seed: of weights and order.
        size: what the run costs.
        data_dir: where the generated images are, or will be.
        work_dir: for the Runner's log.
    """
    data_root = make_data(size, data_dir)
    cfg = detector_config(case, seed, size, data_root, work_dir)
    runner = build_runner(cfg, ('train', 'val'))
    runner.train()
    scalars = runner.message_hub
    return {
        name: 100 * float(scalars.get_scalar(f'val/coco/{key}').current())
        for name, key in _FIGURES.items()
    }

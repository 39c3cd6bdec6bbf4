"""Test-time augmentation for configs that do not bring their own (`--tta`)."""

from __future__ import annotations

from copy import deepcopy

from mmengine.config import Config, ConfigDict

_META_KEYS = (
    'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip',
    'flip_direction',
)  # fmt: skip


def enable_tta(cfg: Config) -> None:
    """Merge the predictions for each image and its mirror image.

    A config's own `tta_model` and `tta_pipeline` are kept; without them the test
    pipeline runs twice, as it is and flipped, and the boxes are merged by NMS at 0.5,
    100 per image (mmdet's defaults).
    """
    if 'tta_model' not in cfg:
        cfg.tta_model = dict(
            type='DetTTAModel',
            tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
        )
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    if 'tta_pipeline' not in cfg:
        flips = [dict(type='RandomFlip', prob=prob) for prob in (1.0, 0.0)]
        pack = [dict(type='PackDetInputs', meta_keys=_META_KEYS)]
        cfg.tta_pipeline = [
            *deepcopy(dataset.pipeline[:-1]),
            dict(type='TestTimeAug', transforms=[flips, pack]),
        ]
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset.pipeline = cfg.tta_pipeline

"""Test-time augmentation for configs that do not bring their own (`--tta`)."""

from __future__ import annotations

from copy import deepcopy

from mmdet.models.test_time_augs import DetTTAModel
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.building import type_name
from gn_det.workbench.inputs.config_parts import evaluators, leaf_datasets

_META_KEYS = (
    'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip',
    'flip_direction',
)  # fmt: skip


@MODELS.register_module()
class BoxTTAModel(DetTTAModel):
    """mmdet's test-time augmentation for detectors that predict masks as well.

    mmdet merges the boxes of several views and stops at masks, for which it has no
    merging; this drops them.
    """

    def merge_preds(
        self, data_samples_list: list[list[DetDataSample]]
    ) -> list[DetDataSample]:
        """Merge the boxes of each image's views, given per image as a list of views."""
        for views in data_samples_list:
            for view in views:
                view.pred_instances.pop('masks', None)
        return super().merge_preds(data_samples_list)


def enable_tta(cfg: Config) -> None:
    """Merge the boxes for each image and its mirror image.

    A config's own `tta_model` and `tta_pipeline` are kept; without them the test
    pipeline runs twice, as it is and flipped, and the boxes are merged by NMS at 0.5,
    100 per image (mmdet's defaults).

    Raises:
        UserError: if masks are to be evaluated, of which there will be none.
    """
    for evaluator in evaluators(cfg, 'test'):
        if 'segm' in evaluator.get('metric', ()):
            raise UserError(
                '--tta merges boxes only; add --cfg-options test_evaluator.metric=bbox'
            )
    if 'tta_model' not in cfg:
        cfg.tta_model = dict(
            type='BoxTTAModel',
            tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
        )
    datasets = leaf_datasets(cfg.test_dataloader.dataset)
    if 'tta_pipeline' not in cfg:
        # Annotations are not read again: the evaluator has the file.
        steps = [
            step
            for step in datasets[0].pipeline[:-1]
            if type_name(step) != 'LoadAnnotations'
        ]
        flips = [dict(type='RandomFlip', prob=prob) for prob in (1.0, 0.0)]
        pack = [dict(type='PackDetInputs', meta_keys=_META_KEYS)]
        cfg.tta_pipeline = [
            *deepcopy(steps),
            dict(type='TestTimeAug', transforms=[flips, pack]),
        ]
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    for dataset in datasets:
        dataset.pipeline = cfg.tta_pipeline

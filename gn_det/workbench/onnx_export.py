"""A two-stage detector as one ONNX graph, from an image to boxes, labels and masks."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.models.task_modules.coders.delta_xywh_bbox_coder import delta2bbox
from torch import Tensor, nn

from gn_det.workbench.atomic_files import replacing
from gn_det.workbench.errors import UserError

OPSET = 18
# The best so many (RoI, class) pairs go into the last NMS. The boxes are mmdet's unless
# more of them pass the score threshold and fewer than max_per_img of the best survive.
_CANDIDATES = 2000
_NMS_SETTINGS = {'type', 'iou_threshold', 'class_agnostic', 'split_thr'}


def export_onnx(
    model: nn.Module, path: str | os.PathLike, image_size: tuple[int, int]
) -> None:
    """Write the inference of a Faster or Mask R-CNN as an ONNX file.

    The graph takes `image`, float32 (1, 3, H, W) of raw pixels 0–255 in the order the
    config's pipeline loads them (BGR), already resized to `image_size`, and subtracts
    the mean, divides by std, turns BGR into RGB and pads as the model's
    preprocessor does. It gives, for the n = `test_cfg.rcnn.max_per_img` best detections
    in falling order of score:

    - `boxes`, float32 (n, 4): x1, y1, x2, y2 in pixels of the image;
    - `labels`, int64 (n,): -1 in the rows that no detection fills;
    - `scores`, float32 (n,): 0 in those rows;
    - `masks`, float32 (n, 28, 28), of a model with a mask head: the probability of
      the object inside its box, before pasting into the image.

    A graph has fixed sizes, mmdet's `predict` has not: the selection is expressed
    anew around the model's own modules and `test_cfg`, padded instead of filtered, and
    every RoI is pooled from all levels, of which its own is taken. Norms stand in the
    graph as torch's operators, not as `gn_det`'s.

    Args:
        model: a detector of mmdet with an RPN and one standard RoI head.
        path: the file; an existing one is replaced when the new one is complete.
        image_size: (H, W) in pixels.

    Raises:
        UserError: for a detector this cannot express, for a path that is a folder or
            lies in none, and if onnx is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f'ONNX export needs {error.name}; pip install onnx onnxscript'
        ) from error
    path = Path(path)
    if path.is_dir():
        raise UserError(f'{path} is a folder; name the ONNX file to write')
    if not path.parent.is_dir():
        raise UserError(f'there is no folder {path.parent} to write {path.name} into')
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        graph = _Inference(model, image_size)
        image = torch.zeros((1, 3, *image_size), device=graph.mean.device)
        program = torch.onnx.export(
            graph.eval(),
            (image,),
            input_names=['image'],
            output_names=['boxes', 'labels', 'scores', 'masks'][: graph.outputs],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    finally:
        for module, was in training.items():
            module.training = was
    with replacing(path) as partial:
        program.save(partial, external_data=False)


class _Inference(nn.Module):
    """The detector's inference on one image in shapes that do not depend on it."""

    def __init__(self, model: nn.Module, image_size: tuple[int, int]) -> None:
        super().__init__()
        _check(model)
        self.model = model
        self.image_size = image_size
        self.outputs = 4 if model.roi_head.with_mask else 3
        preprocessor = model.data_preprocessor
        self.to_rgb = preprocessor._channel_conversion
        self.register_buffer('mean', preprocessor.mean)
        self.register_buffer('std', preprocessor.std)
        divisor = preprocessor.pad_size_divisor
        self.padding = [-size % divisor for size in image_size]
        with torch.no_grad():
            padded = [a + b for a, b in zip(image_size, self.padding, strict=True)]
            maps = model.extract_feat(self.mean.new_zeros((1, 3, *padded)))
            scores, _ = model.rpn_head(maps)
        priors = model.rpn_head.prior_generator.grid_priors(
            [level.shape[-2:] for level in scores], device=self.mean.device
        )
        self.levels = len(priors)
        for i, level in enumerate(priors):
            self.register_buffer(f'priors{i}', level)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        if self.to_rgb:
            image = image[:, [2, 1, 0]]
        image = (image - self.mean) / self.std
        height, width = self.padding
        maps = self.model.extract_feat(
            F.pad(image, (0, width, 0, height), value=self._pad_value)
        )
        proposals, valid = self._proposals(maps)
        boxes, labels, scores = self._detections(maps, proposals, valid)
        found = scores > 0
        results = (boxes * found[:, None], labels.where(found, -1), scores)
        if not self.model.roi_head.with_mask:
            return results
        return (*results, self._masks(maps, boxes, labels))

    @property
    def _pad_value(self) -> float:
        return float(self.model.data_preprocessor.pad_value)

    def _proposals(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """The RPN's max_per_img boxes, and which of them are no padding."""
        head, settings = self.model.rpn_head, self.model.test_cfg.rpn
        all_scores, all_deltas, all_priors, levels = [], [], [], []
        for i, (scores, deltas) in enumerate(zip(*head(maps), strict=True)):
            scores = scores[0].permute(1, 2, 0).reshape(-1, head.cls_out_channels)
            if head.use_sigmoid_cls:
                scores = scores.sigmoid()[:, 0]
            else:
                scores = scores.softmax(-1)[:, 0]
            deltas = deltas[0].permute(1, 2, 0).reshape(-1, 4)
            scores, best = scores.topk(min(settings.nms_pre, len(scores)))
            all_scores.append(scores)
            all_deltas.append(deltas[best])
            all_priors.append(getattr(self, f'priors{i}')[best])
            levels.append(torch.full_like(best, i))
        boxes = self._decode(
            head.bbox_coder, torch.cat(all_priors), torch.cat(all_deltas)
        )
        scores = torch.cat(all_scores)
        if settings.get('min_bbox_size', -1) >= 0:
            size = boxes[:, 2:] - boxes[:, :2]
            large = (size > settings.min_bbox_size).all(1)
            scores = scores.where(large, -1)
        scores, best = self._best(
            boxes, scores, torch.cat(levels), settings.nms, settings.max_per_img
        )
        return boxes[best], scores > 0

    def _detections(
        self, maps: tuple[Tensor, ...], proposals: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, labels and scores, in falling order; rows of padding score 0."""
        roi_head, settings = self.model.roi_head, self.model.test_cfg.rcnn
        head = roi_head.bbox_head
        pooled = _pool(roi_head.bbox_roi_extractor, maps, proposals)
        logits, deltas = head(pooled)
        # The last column is the background's.
        scores = logits.softmax(-1)[:, :-1]
        classes = scores.shape[1]
        scores = scores.where((scores > settings.score_thr) & valid[:, None], -1)
        scores, pairs = scores.flatten().topk(min(_CANDIDATES, scores.numel()))
        rois, labels = pairs // classes, pairs % classes
        if not head.reg_class_agnostic:
            deltas = deltas.view(len(proposals), classes, 4)[rois, labels]
        else:
            deltas = deltas[rois]
        boxes = self._decode(head.bbox_coder, proposals[rois], deltas)
        scores, best = self._best(
            boxes, scores, labels, settings.nms, settings.max_per_img
        )
        return boxes[best], labels[best], scores.clamp(min=0)

    def _masks(self, maps: tuple[Tensor, ...], boxes: Tensor, labels: Tensor) -> Tensor:
        roi_head = self.model.roi_head
        extractor = roi_head.mask_roi_extractor
        masks = roi_head.mask_head(_pool(extractor, maps, boxes)).sigmoid()
        if roi_head.mask_head.class_agnostic:
            return masks[:, 0]
        return masks[torch.arange(len(masks), device=masks.device), labels]

    def _decode(self, coder: nn.Module, boxes: Tensor, deltas: Tensor) -> Tensor:
        # coder.decode itself imports a module that mmdet 3 no longer has while torch
        # exports to ONNX.
        return delta2bbox(
            boxes,
            deltas,
            coder.means,
            coder.stds,
            self.image_size,
            clip_border=coder.clip_border,
            add_ctr_clamp=coder.add_ctr_clamp,
            ctr_clamp=coder.ctr_clamp,
        )

    def _best(
        self, boxes: Tensor, scores: Tensor, kinds: Tensor, nms: dict, count: int
    ) -> tuple[Tensor, Tensor]:
        """Scores and places of the `count` best after NMS per kind, padded with -1.

        Boxes with a negative score are no candidates; they come last, so that they
        suppress none.
        """
        # Boxes of different kinds are moved apart, as batched_nms of mmcv does.
        apart = kinds.to(boxes)[:, None] * (max(self.image_size) + 1)
        if nms.get('class_agnostic', False):
            apart = torch.zeros_like(apart)
        kept = torchvision.ops.nms(boxes + apart, scores, nms['iou_threshold'])
        survives = torch.zeros_like(scores).scatter(0, kept, 1.0) > 0
        scores = scores.where(survives, -1)
        missing = count - len(scores)
        if missing > 0:
            scores = F.pad(scores, (0, missing), value=-1.0)
        scores, best = scores.topk(count)
        return scores, best.clamp(max=len(boxes) - 1)


def _pool(extractor: nn.Module, maps: tuple[Tensor, ...], boxes: Tensor) -> Tensor:
    """RoIAlign of each box on its own level, in fixed shapes."""
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], 1)
    levels = extractor.map_roi_levels(rois, len(extractor.roi_layers))
    pooled = None
    for i, (level, layer) in enumerate(zip(maps, extractor.roi_layers, strict=False)):
        found = torchvision.ops.roi_align(
            level,
            rois,
            layer.output_size,
            layer.spatial_scale,
            layer.sampling_ratio,
            layer.aligned,
        )
        mine = (levels == i)[:, None, None, None]
        pooled = found if pooled is None else found.where(mine, pooled)
    return pooled


def _check(model: nn.Module) -> None:
    """Refuses what the graph would not express."""
    name = type(model).__name__
    roi_head = getattr(model, 'roi_head', None)
    if roi_head is None or not getattr(model, 'with_rpn', False):
        raise UserError(f'{name} has no RPN and RoI head; ONNX export takes those only')
    for part, wanted in ((model.rpn_head, 'RPNHead'), (roi_head, 'StandardRoIHead')):
        if type(part).__name__ != wanted:
            raise UserError(
                f'{name} has a {type(part).__name__}; ONNX export knows {wanted}'
            )
    if roi_head.with_shared_head or roi_head.bbox_head.custom_cls_channels:
        raise UserError(f'ONNX export knows no shared head or custom classes: {name}')
    for part in (model.rpn_head, roi_head.bbox_head):
        if type(part.bbox_coder) is not DeltaXYWHBBoxCoder:
            raise UserError(
                f'{name} has a {type(part.bbox_coder).__name__}; ONNX export knows '
                'DeltaXYWHBBoxCoder'
            )
    for part in ('rpn', 'rcnn'):
        nms = model.test_cfg[part].get('nms')
        if nms is None or nms.get('type', 'nms') != 'nms':
            kind = nms and nms['type']
            raise UserError(
                f'ONNX export knows nms, not {kind}: test_cfg.{part}.nms of {name}'
            )
        if unknown := set(nms) - _NMS_SETTINGS:
            raise UserError(
                f'ONNX export does not know {min(unknown)} of test_cfg.{part}.nms of '
                f'{name}'
            )
    if getattr(model.data_preprocessor, 'mean', None) is None:
        raise UserError(
            f'ONNX export needs mean and std in the data_preprocessor of {name}'
        )
    extractors = [roi_head.bbox_roi_extractor]
    if roi_head.with_mask:
        extractors.append(roi_head.mask_roi_extractor)
    for extractor in extractors:
        for layer in extractor.roi_layers:
            averages = getattr(layer, 'pool_mode', None) == 'avg'
            if type(layer).__name__ != 'RoIAlign' or not averages:
                raise UserError(
                    f'{name} pools with {layer}; ONNX export knows RoIAlign that '
                    'averages'
                )

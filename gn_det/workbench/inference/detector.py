"""A trained detector for images in memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.apis import init_detector
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS, VISUALIZERS
from mmdet.structures import DetDataSample
from mmdet.utils import get_test_pipeline_cfg, register_all_modules
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import load_checkpoint
from pycocotools import mask as coco_mask

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs import checkpoints
from gn_det.workbench.inputs.building import name_wrong_settings
from gn_det.workbench.inputs.config import load_config
from gn_det.workbench.inputs.group_norm import with_group_norm
from gn_det.workbench.zoo.download import download

# Between 1 and 90, what COCO's detection annotations have no objects of.
_NOT_IN_COCO = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})


def category_ids(classes: Sequence[str]) -> list[int]:
    """The id of each class: COCO's own for its 80 classes, otherwise 1, 2, ….

    A set of one's own has ids that its annotation file says, and no model knows.
    """
    if tuple(classes) == CocoDataset.METAINFO['classes']:
        return [number for number in range(1, 91) if number not in _NOT_IN_COCO]
    return list(range(1, len(classes) + 1))


@dataclass(frozen=True)
class Detections:
    """What was found in one image.

    Attributes:
        classes: names of all the classes there are.
        labels: (K,) places of the names in `classes`.
        scores: (K,) from 0 to 1, falling.
        boxes: (K, 4), x1 y1 x2 y2 in pixels of the image.
        masks: (K, H, W) booleans, or None for a model without masks.
        sample: the same as mmdet has it.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray | None
    sample: DetDataSample

    def __len__(self) -> int:
        return len(self.scores)

    def coco(self, image_id: int, first_id: int = 1) -> list[dict[str, Any]]:
        """Annotations in COCO's form, with the ids of `category_ids`."""
        ids = category_ids(self.classes)
        found = []
        for i, (x1, y1, x2, y2) in enumerate(self.boxes.tolist()):
            one = dict(
                id=first_id + i,
                image_id=image_id,
                category_id=ids[self.labels[i]],
                bbox=[x1, y1, x2 - x1, y2 - y1],
                area=(x2 - x1) * (y2 - y1),
                iscrowd=0,
                score=float(self.scores[i]),
            )
            if self.masks is not None:
                mask = coco_mask.encode(np.asfortranarray(self.masks[i], np.uint8))
                one['area'] = float(coco_mask.area(mask))
                one['segmentation'] = {**mask, 'counts': mask['counts'].decode()}
            found.append(one)
        return found


class Detector:
    """A model with its test pipeline.

    Args:
        model: of mmdet, with `cfg` and `dataset_meta`, in eval mode on its device.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.classes = tuple(model.dataset_meta['classes'])
        pipeline = deepcopy(get_test_pipeline_cfg(model.cfg))
        # The images come from memory, and there is no truth to load.
        pipeline[0] = dict(type='mmdet.LoadImageFromNDArray')
        self._pipeline = Compose(
            [step for step in pipeline if 'LoadAnnotations' not in step['type']]
        )
        visualizer = deepcopy(model.cfg.get('visualizer') or {})
        self._visualizer = VISUALIZERS.build(
            dict(type=visualizer.get('type', 'DetLocalVisualizer'), name='gn_det')
        )
        self._visualizer.dataset_meta = model.dataset_meta

    def detect(
        self,
        images: Iterable[np.ndarray],
        score_threshold: float = 0.3,
        batch_size: int = 1,
        on_failure: Callable[[int, Exception], None] | None = None,
    ) -> Iterator[tuple[int, np.ndarray, Detections]]:
        """Detect objects; results come as batches are full.

        Group Norm takes its statistics over the padding too, so an image is put
        together only with those that are padded to the same size: what is found in it
        does not depend on the batch. Images of one size come in their order; those of
        several sizes may overtake each other.

        Args:
            images: (H, W, 3) bytes, BGR as OpenCV has them; read as they are needed.
            score_threshold: what scores less is left out.
            batch_size: most images at once.
            on_failure: is told the place of an image that the test pipeline fails on,
                as resizing does on one far too narrow, and why; the image is left out.
                By default the error is raised.

        Yields:
            The place of an image among `images`, the image, and what was found in it.
        """
        waiting: dict[tuple[int, int], list[tuple[int, np.ndarray, dict]]] = {}
        for index, image in enumerate(images):
            try:
                data = self._pipeline(dict(img=image, img_id=index))
            # A transform of anyone's may fail in any way.
            except Exception as error:
                if on_failure is None:
                    raise
                on_failure(index, error)
                continue
            batch = waiting.setdefault(self._padded_shape(data['inputs']), [])
            batch.append((index, image, data))
            if len(batch) == batch_size:
                yield from self._detect_batch(batch, score_threshold)
                batch.clear()
        for batch in waiting.values():
            if batch:
                yield from self._detect_batch(batch, score_threshold)

    def _padded_shape(self, image: torch.Tensor) -> tuple[int, int]:
        divisor = getattr(self.model.data_preprocessor, 'pad_size_divisor', 1)
        height, width = image.shape[-2:]
        return -(-height // divisor) * divisor, -(-width // divisor) * divisor

    def _detect_batch(
        self, batch: list[tuple[int, np.ndarray, dict]], score_threshold: float
    ) -> Iterator[tuple[int, np.ndarray, Detections]]:
        data = dict(
            inputs=[data['inputs'] for _, _, data in batch],
            data_samples=[data['data_samples'] for _, _, data in batch],
        )
        with torch.no_grad():
            samples = self.model.test_step(data)
        for (index, image, _), sample in zip(batch, samples, strict=True):
            yield index, image, self._detections(sample, score_threshold)

    def _detections(self, sample: DetDataSample, threshold: float) -> Detections:
        found = sample.pred_instances
        found = found[found.scores >= threshold].cpu()
        found = found[found.scores.argsort(descending=True)]
        sample.pred_instances = found
        masks = found.masks.numpy().astype(bool) if 'masks' in found else None
        return Detections(
            classes=self.classes,
            labels=found.labels.numpy(),
            scores=found.scores.numpy(),
            boxes=found.bboxes.numpy(),
            masks=masks,
            sample=sample,
        )

    def paint(self, image: np.ndarray, found: Detections) -> np.ndarray:
        """A copy of a BGR image with boxes, masks, classes and scores on it."""
        # mmengine warns of every box that touches the border.
        with warnings.catch_warnings(record=True):
            self._visualizer.add_datasample(
                'image',
                image[..., ::-1],
                found.sample,
                draw_gt=False,
                pred_score_thr=0.0,
            )
        return np.ascontiguousarray(self._visualizer.get_image()[..., ::-1])


def load_detector(
    config: str | Path,
    checkpoint: str | Path | None = None,
    device: str | None = None,
    options: dict[str, Any] | None = None,
    norm: str | None = None,
    fuse: bool = False,
) -> Detector:
    """Build a config's model and load its weights.

    Args:
        config: a config file.
        checkpoint: file or address; by default the zoo's weights for this config.
        device: such as `cpu` or `cuda:1`; by default the accelerator, if there is one.
        options: dotted keys and values to override in the config.
        norm: 'gn' to replace Batch Norm, as for a checkpoint trained with `--norm gn`.
        fuse: fuse a model whose config is not this project's.

    Raises:
        UserError: for a wrong config, checkpoint or device, a config of which the zoo
            has no weights, or a model without the norms to replace or to fuse.
    """
    cfg = load_config(str(config), options)
    path = str(checkpoint) if checkpoint is not None else _zoo_weights(cfg)
    device = _usable(device)
    register_all_modules(init_default_scope=True)
    # The weights come from the checkpoint: no pretrained backbone is fetched first.
    cfg.model.backbone.init_cfg = None
    cfg = with_group_norm(cfg, norm, fuse)
    # It warns of the missing checkpoint, which is loaded below with a check.
    with warnings.catch_warnings(record=True), name_wrong_settings(cfg):
        model = init_detector(cfg, None, device='cpu')
    checkpoints.check_fit(model, path)
    meta = load_checkpoint(model, path, map_location='cpu').get('meta', {})
    model.dataset_meta = _dataset_meta(meta, cfg)
    return Detector(model.to(device))


def _zoo_weights(cfg: Config) -> str:
    try:
        return str(download(Path(cfg.filename).stem))
    except UserError as error:
        raise UserError(
            f'no CHECKPOINT was given, and {error}; give the checkpoint that '
            f'gn-det train {cfg.filename} wrote'
        ) from error


def _usable(device: str | None) -> str:
    if device is None:
        return get_device()
    try:
        torch.zeros(1, device=device)
    # torch raises several kinds, among them AssertionError for a build without CUDA.
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f'--device {device} cannot be used: {reason}; --device cpu always works'
        ) from error
    return device


def _dataset_meta(meta: dict[str, Any], cfg: Config) -> dict[str, Any]:
    """Class names and colours: the checkpoint's, completed by the config's."""
    dataset = deepcopy(cfg.test_dataloader.dataset)
    # Only the names are wanted; the data need not be there.
    dataset['lazy_init'] = True
    named = {k.lower(): v for k, v in (meta.get('dataset_meta') or {}).items()}
    found = {**DATASETS.build(dataset).metainfo, **named}
    found.setdefault('palette', 'random')
    return found

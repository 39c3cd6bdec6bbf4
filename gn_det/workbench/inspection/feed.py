"""The images a model is fed: after the pipeline, padded into batches, normalised."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.runner import Runner
from pycocotools import mask as coco_mask

from gn_det.workbench.evaluation.kept_scores import Mask, PaintedObject
from gn_det.workbench.inputs.annotations import share_with_mmdet
from gn_det.workbench.inputs.building import name_wrong_settings, type_name
from gn_det.workbench.inputs.config_parts import leaf_datasets
from gn_det.workbench.inputs.data import class_names
from gn_det.workbench.inputs.image_loading import replace_loading
from gn_det.workbench.runtime.repeatable import batches_from, repeatable


@dataclass(frozen=True)
class FedImage:
    """One image of a batch.

    Attributes:
        name: of its file.
        pixels: (H, W, 3) bytes, RGB, with the padding of its batch.
        size: height and width without the padding.
        flipped: whether the pipeline has mirrored it.
        objects: its truth, in these pixels.
    """

    name: str
    pixels: np.ndarray
    size: tuple[int, int]
    flipped: bool
    objects: tuple[PaintedObject, ...]


def fed_batches(cfg: Config, split: str, count: int) -> Iterator[list[FedImage]]:
    """The first batches of a training or validation, as one process is fed them.

    In a training with the seed of the config (0 without one) they are the same.

    Args:
        cfg: whose data have been checked.
        split: `'train'`, `'val'` or `'test'`.
        count: of images; the last batch is cut.

    Raises:
        UserError: for a pipeline that cannot be built, and a broken image.
    """
    register_all_modules(init_default_scope=True)
    share_with_mmdet()
    seed = (cfg.get('randomness') or {}).get('seed') or 0
    settings = deepcopy(cfg[f'{split}_dataloader'])
    settings.num_workers, settings.persistent_workers = 0, False
    settings.pop('prefetch_factor', None)
    if split == 'train':
        settings = repeatable(settings, seed, 'max_iters' in (cfg.train_cfg or {}))
    with name_wrong_settings(cfg):
        loader = Runner.build_dataloader(settings, seed=seed)
        preprocess = MODELS.build(cfg.model.data_preprocessor)
    replace_loading(loader.dataset)
    dataset = leaf_datasets(cfg[f'{split}_dataloader'].dataset)[0]
    classes = class_names(dataset) or ()
    for batch in batches_from(loader, 0, 0):
        with torch.no_grad():
            fed = preprocess(batch, training=split == 'train')
        images = [
            _fed_image(_shown(pixels, preprocess, cfg), sample, dataset, classes)
            for pixels, sample in zip(fed['inputs'], fed['data_samples'], strict=True)
        ]
        yield images[:count]
        count -= len(images)
        if count <= 0:
            return


def _shown(pixels: torch.Tensor, preprocess: Any, cfg: Config) -> np.ndarray:
    """(H, W, 3) bytes in RGB of (3, H, W) numbers as the backbone gets them."""
    if getattr(preprocess, '_enable_normalize', False):
        pixels = pixels * preprocess.std + preprocess.mean
    image = pixels.permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
    is_rgb = cfg.model.data_preprocessor.get('bgr_to_rgb', False)
    return image if is_rgb else image[..., ::-1]


def _fed_image(
    pixels: np.ndarray, sample: DetDataSample, dataset: Any, classes: tuple[str, ...]
) -> FedImage:
    height, width = sample.img_shape[:2]
    own_scale = _loads_after_resizing(dataset)
    objects = [
        PaintedObject(
            classes[label] if label < len(classes) else str(label),
            box,
            mask,
            None,
            crowd,
        )
        for part, crowd in (('gt_instances', False), ('ignored_instances', True))
        for label, box, mask in _objects(sample, part, own_scale, pixels.shape[:2])
    ]
    return FedImage(
        name=Path(sample.img_path).name,
        pixels=pixels,
        size=(height, width),
        flipped=bool(sample.get('flip')),
        objects=tuple(objects),
    )


def _objects(
    sample: DetDataSample, part: str, own_scale: bool, padded: tuple[int, int]
) -> Iterator[tuple[int, tuple[float, ...], Mask | None]]:
    found = sample.get(part)
    if found is None or 'bboxes' not in found:
        return
    boxes = getattr(found.bboxes, 'tensor', found.bboxes).numpy().astype(float)
    masks = found.get('masks')
    height, width = sample.img_shape[:2]
    if own_scale:
        boxes = boxes * np.tile(sample.scale_factor, 2)
        masks = masks.resize((height, width)) if masks is not None else None
    bitmaps = masks.to_ndarray() if masks is not None else [None] * len(boxes)
    for label, (x1, y1, x2, y2), bitmap in zip(
        found.labels.tolist(), boxes, bitmaps, strict=True
    ):
        yield label, (x1, y1, x2 - x1, y2 - y1), _mask(bitmap, padded)


def _mask(bitmap: np.ndarray | None, padded: tuple[int, int]) -> Mask | None:
    if bitmap is None:
        return None
    whole = np.zeros(padded, np.uint8, order='F')
    whole[: bitmap.shape[0], : bitmap.shape[1]] = bitmap
    encoded = coco_mask.encode(whole)
    return Mask(tuple(encoded['size']), encoded['counts'].decode())


def _loads_after_resizing(dataset: Any) -> bool:
    """Whether truth is loaded when the image has been resized, as for evaluation."""
    names = [type_name(step) for step in dataset.get('pipeline') or ()]
    loading = names.index('LoadAnnotations') if 'LoadAnnotations' in names else 0
    return any('Resize' in name for name in islice(names, loading))

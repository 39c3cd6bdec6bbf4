"""Test batches in which every image is padded as it is alone.

Group Norm takes its statistics over the padding as well, so an image beside a larger
one gets other features than alone, and AP would depend on the batch size. Here a batch
holds images of one padded shape only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset, DefaultSampler
from mmengine.logging import print_log
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import Sampler

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.building import type_name


@DATA_SAMPLERS.register_module()
class ShapeOrderedSampler(DefaultSampler):
    """mmengine's `DefaultSampler`, with images of one padded shape side by side.

    Ranks take turns as there: collected results need no reordering, and the images
    repeated to give each rank as many come last.

    Args:
        dataset: with `height` and `width` of every image, as mmdet's COCO datasets.
        divisor: of the padded height and width, `pad_size_divisor` of the model.
        seed: given by the Runner to every sampler; the order does not depend on it.
    """

    def __init__(
        self, dataset: BaseDataset, divisor: int = 1, seed: int | None = None
    ) -> None:
        super().__init__(dataset, shuffle=False, seed=seed)
        self.shapes = padded_shapes(dataset, divisor)
        self.order = sorted(range(len(dataset)), key=self.shapes.__getitem__)

    def __iter__(self) -> Iterator[int]:
        """The indices of this rank."""
        repeats = math.ceil(self.total_size / len(self.order))
        indices = (self.order * repeats)[: self.total_size]
        return iter(indices[self.rank :: self.world_size])


@DATA_SAMPLERS.register_module()
class SameShapeBatchSampler(Sampler):
    """Batches of a `ShapeOrderedSampler` that end where the shape changes."""

    def __init__(self, sampler: ShapeOrderedSampler, batch_size: int) -> None:
        self.sampler = sampler
        self.batches: list[list[int]] = []
        for index in sampler:
            last = self.batches[-1] if self.batches else []
            shapes = {sampler.shapes[i] for i in (*last[:1], index)}
            if last and len(last) < batch_size and len(shapes) == 1:
                last.append(index)
            else:
                self.batches.append([index])

    def __iter__(self) -> Iterator[list[int]]:
        """Lists of at most `batch_size` indices."""
        return iter(self.batches)

    def __len__(self) -> int:
        """The number of batches of this rank."""
        return len(self.batches)


def batch_by_shape(cfg: Config, split: str) -> None:
    """Let `'val'` or `'test'` batches hold images of one padded shape.

    Nothing changes for batches of one image. Where the config orders its data in
    another way, or joins several datasets, that is kept, and a warning says what
    follows from it.
    """
    loader = cfg.get(f'{split}_dataloader')
    if loader is None or loader.get('batch_size', 1) == 1:
        return
    sampler = loader.get('sampler') or {}
    is_plain = type_name(sampler) == 'DefaultSampler' and not sampler.get('shuffle')
    is_single = not {'dataset', 'datasets'} & set(loader.dataset)
    if not (is_plain and is_single and loader.get('batch_sampler') is None):
        print_log(
            f'{split}_dataloader.batch_size={loader.batch_size} with a sampler or '
            'dataset of its own: images are padded to the largest of their batch, '
            'which Group Norm sees, so AP differs from that at batch_size=1'
        )
        return
    model = cfg.model.get('module', cfg.model)
    divisor = (model.get('data_preprocessor') or {}).get('pad_size_divisor', 1)
    loader.sampler = dict(type='ShapeOrderedSampler', divisor=divisor)
    loader.batch_sampler = dict(type='SameShapeBatchSampler')
    loader.pop('drop_last', None)


def padded_shapes(dataset: BaseDataset, divisor: int) -> list[tuple[int, int]]:
    """(height, width) at which each image alone enters the model.

    The dataset's own transforms say so, applied to an empty image of each size. Before
    test-time augmentation the sizes are kept as they are: equal ones stay equal.

    Raises:
        UserError: if a transform cannot tell without the real image.
    """
    known: dict[tuple[int, int], tuple[int, int]] = {}
    shapes = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        size = (info['height'], info['width'])
        if size not in known:
            known[size] = _padded_shape(dataset, size, divisor)
        shapes.append(known[size])
    return shapes


def _padded_shape(
    dataset: BaseDataset, size: tuple[int, int], divisor: int
) -> tuple[int, int]:
    image = np.zeros((*size, 3), np.uint8)
    results = dict(img=image, img_shape=size, ori_shape=size)
    for step in dataset.pipeline.transforms:
        name = type(step).__name__
        if name == 'TestTimeAug':
            return results['img'].shape[:2]
        if name.startswith(('Load', 'Pack')):
            continue
        try:
            results = step(results)
        # A transform of anyone's may fail in any way.
        except Exception as error:
            raise UserError(
                f'images of one padded shape are to share a batch, and {name} of the '
                f'test pipeline does not say the shape ({error!r}); set batch_size=1'
            ) from error
    height, width = results['img'].shape[:2]
    return (
        math.ceil(height / divisor) * divisor,
        math.ceil(width / divisor) * divisor,
    )

"""Statistics over each image's own region of a padded batch, and zeros around it.

Images of a batch are padded to a common size, and a Group Norm that averages over the
padding gives an image other outputs than it gives the image alone. Here every image is
normalised by itself, over what it would be alone, and what lies beyond stays zero, as
the zeros that a convolution would pad it with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gn_det.fusion.calls import FusedNorm
from gn_det.fusion.core import FusedModule, fused_class
from gn_det.layers import FUSED_NORMS, FusedGroupNorm

_POOLS = (nn.MaxPool2d, nn.AvgPool2d)


STRIDE = 32
"""Of the coarsest map that a backbone makes: what an image has to be padded to."""


class Regions:
    """The sizes of the images in the batch that a model works on.

    Shared by the parts of one model and kept until its next batch, because a backward
    that runs a forward again (`with_cp`) asks for them, too.
    """

    def __init__(self) -> None:
        self._batch: tuple[int, int] = (0, 0)
        self._sizes: list[tuple[int, int]] = []
        self._announced: list[tuple[int, int]] = []

    def announce(self, sizes: Sequence[Sequence[int]]) -> None:
        """Take H and W of each image of the batch to come, padded as it would be alone.

        Raises:
            ValueError: if a side is no multiple of `STRIDE`.
        """
        for height, width in (size[:2] for size in sizes):
            if height % STRIDE or width % STRIDE:
                raise ValueError(
                    f'valid_region=True: an image is padded to {height} x {width}, '
                    f'and no multiple of {STRIDE}; set pad_size_divisor={STRIDE} in '
                    'the data_preprocessor'
                )
        self._announced = [(size[0], size[1]) for size in sizes]

    def begin(self, batch: Sequence[int]) -> None:
        """A batch begins; images that nobody announced fill it.

        Args:
            batch: H and W of the padded batch.
        """
        sizes, self._announced = self._announced, []
        self._batch = (batch[0], batch[1])
        self._sizes = [] if all(size == self._batch for size in sizes) else sizes

    def of(self, x: Tensor) -> list[tuple[int, int]] | None:
        """H and W of each image in a map (N, C, H, W); None where all fill the map."""
        if not self._sizes:
            return None
        level = round(math.log2(self._batch[0] / x.shape[2]))
        rows, columns = (-(-side // 2**level) for side in self._batch)
        if len(self._sizes) != len(x) or x.shape[2:] != (rows, columns):
            raise ValueError(
                f'valid_region=True: a map of shape {tuple(x.shape)} is no halving of '
                f'{len(self._sizes)} images of {self._batch[0]} x {self._batch[1]}'
            )
        return [
            (-(-height // 2**level), -(-width // 2**level))
            for height, width in self._sizes
        ]

    def cut(self, x: Tensor, i: int) -> Tensor:
        """The region of image i in a map, as a map of one image."""
        sizes = self.of(x)
        height, width = x.shape[2:] if sizes is None else sizes[i]
        return x[i : i + 1, :, :height, :width]

    def each(self, x: Tensor, function: Callable[[Tensor, int], Tensor]) -> Tensor:
        """`function` of each image's region, with the image's place, zeros around."""
        regions = (function(self.cut(x, i), i) for i in range(len(x)))
        return torch.cat([_widened(region, x, 'constant') for region in regions])

    def cleared(self, x: Tensor) -> Tensor:
        """x with zeros around each image."""
        if self.of(x) is None:
            return x
        return self.each(x, lambda region, _: region)

    def continued(self, x: Tensor) -> Tensor:
        """x with each image's last row and column repeated around it.

        That is how RoIAlign reads beyond the border of a map.
        """
        if self.of(x) is None:
            return x
        regions = (self.cut(x, i) for i in range(len(x)))
        return torch.cat([_widened(region, x, 'replicate') for region in regions])


class RegionNorm(FusedNorm):
    """A norm of the maps of whole images; `regions` says what of them is image."""

    _prefix = 'Region'
    regions: Regions

    def forward(
        self,
        x: Tensor,
        residual: Tensor | None = None,
        activation: str | None = None,
    ) -> Tensor:
        """`FusedGroupNorm.forward` of each image's region, zeros around it."""
        if self.regions.of(x) is None:
            return FusedGroupNorm.forward(self, x, residual, activation)
        layout = torch.contiguous_format
        if x.is_contiguous(memory_format=torch.channels_last):
            layout = torch.channels_last

        def normalised(region: Tensor, i: int) -> Tensor:
            added = None
            if residual is not None:
                added = self.regions.cut(residual, i).contiguous(memory_format=layout)
            region = region.contiguous(memory_format=layout)
            return FusedGroupNorm.forward(self, region, added, activation)

        return self.regions.each(x, normalised)


class RegionRPN(FusedModule):
    """A head over whole images, mixed in so that it finds nothing beyond one's own."""

    _prefix = 'Region'
    regions: Regions

    def predict_by_feat(
        self, *maps: Sequence[Tensor], batch_img_metas: list[dict], **settings: Any
    ) -> list:
        """The stock choice, from each image's region of its maps by itself."""
        choose = super().predict_by_feat  # type: ignore[misc]
        if all(self.regions.of(x) is None for x in maps[0]):
            return choose(*maps, batch_img_metas=batch_img_metas, **settings)
        chosen = []
        for i, meta in enumerate(batch_img_metas):
            own = [[self.regions.cut(x, i) for x in levels] for levels in maps]
            chosen += choose(*own, batch_img_metas=[meta], **settings)
        return chosen


def use_regions(regions: Regions, *parts: nn.Module) -> None:
    """Let the parts of a model that work on whole images keep to `regions`, in place.

    A pool behind a norm carries an image's border outwards: what it gives is cleared.
    Where not every convolution has a Group Norm behind, that would leave zeros around
    the images, what each window reads is cleared.

    Args:
        regions: what the model announces its images to.
        *parts: backbone, neck and RPN; a part that the model lacks may be None.
    """
    for part in filter(None, parts):
        norms = [m for m in part.modules() if type(m) in FUSED_NORMS]
        pools = [m for m in part.modules() if isinstance(m, _POOLS)]
        convs = [m for m in part.modules() if isinstance(m, nn.Conv2d)]
        for norm in norms:
            norm.__class__ = fused_class(RegionNorm, type(norm))
            norm.regions = regions
        for pool in pools:
            pool.register_forward_hook(_Clearing(regions).after)
        if len(norms) < len(convs):
            for window in (*pools, *convs):
                if window.kernel_size not in (1, (1, 1)):
                    window.register_forward_pre_hook(_Clearing(regions).before)
        if hasattr(part, 'predict_by_feat'):
            part.__class__ = fused_class(RegionRPN, type(part))
            part.regions = regions


class _Clearing:
    """Hooks that can be copied and pickled with their model."""

    def __init__(self, regions: Regions) -> None:
        self.regions = regions

    def before(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple:
        return self.regions.cleared(inputs[0]), *inputs[1:]

    def after(self, module: nn.Module, inputs: tuple, y: Tensor) -> Tensor:
        return self.regions.cleared(y)


def _widened(region: Tensor, x: Tensor, mode: str) -> Tensor:
    below, right = x.shape[2] - region.shape[2], x.shape[3] - region.shape[3]
    if not below and not right:
        return region
    return F.pad(region, (0, right, 0, below), mode=mode)

"""Detectron's anchors: rounded at the size of a stride, then scaled."""

from __future__ import annotations

import torch
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmengine.registry import TASK_UTILS
from torch import Tensor


@TASK_UTILS.register_module()
class DetectronAnchorGenerator(AnchorGenerator):
    """Anchors with the corners of `detectron/modeling/generate_anchors.py`.

    For a stride s, a ratio r = height / width and a scale k:

        w = round(√(s² / r)),  h = round(w · r)
        corners (s − 1)/2 ± (k·w − 1)/2  and  (s − 1)/2 ± (k·h − 1)/2

    mmdet's `LegacyAnchorGenerator` rounds corners after scaling, which is up to 3 px
    off. Arguments as `AnchorGenerator`'s; `centers` and `center_offset` have no use.
    """

    def gen_single_level_base_anchors(
        self,
        base_size: float,
        scales: Tensor,
        ratios: Tensor,
        center: tuple[float, float] | None = None,
    ) -> Tensor:
        """Anchors (ratios · scales, 4) of the cell at the origin, ratio by ratio."""
        ratios, scales = ratios.double(), scales.double()
        # Half to even, as NumPy rounds.
        widths = torch.sqrt(base_size**2 / ratios).round()
        heights = (widths * ratios).round()
        half = torch.stack([widths, heights], dim=1)[:, None] * scales[None, :, None]
        half = (half.reshape(-1, 2) - 1) / 2
        centre = (base_size - 1) / 2
        return torch.cat([centre - half, centre + half], dim=1).float()

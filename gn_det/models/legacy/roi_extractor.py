"""Which level of the pyramid a RoI is cut from, as Detectron chooses it."""

from __future__ import annotations

import torch
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmengine.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class DetectronRoIExtractor(SingleRoIExtractor):
    """Levels by `map_rois_to_fpn_levels` of `detectron/modeling/FPN.py`.

        level = floor(4 + log2(√area / 224 + 1e-6)),  area = (w + 1)(h + 1)

    counted from level 2, whose index is 0. `finest_scale` is 56, 224 at level 4.
    """

    def map_roi_levels(self, rois: Tensor, num_levels: int) -> Tensor:
        """Index of the level for each RoI of (K, 5)."""
        sizes = rois[:, 3:] - rois[:, 1:3] + 1
        canonical = 4 * self.finest_scale
        level = torch.log2(sizes.prod(dim=1).sqrt() / canonical + 1e-6) + 2
        return level.floor().clamp(0, num_levels - 1).long()

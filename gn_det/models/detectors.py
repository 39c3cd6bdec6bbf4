"""mmdet's two-stage detectors, fused as they are built.

A config names one of these types where mmdet's says `MaskRCNN`; it takes the same
settings and two more, and whatever builds it (Runner, `init_detector`, `DetInferencer`,
`MODELS.build`) gets a fused model. Names and shapes of the state dict are the stock
model's.
"""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.detectors import CascadeRCNN, FasterRCNN, MaskRCNN
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor

from gn_det.fusion import fuse


class FusedDetector:
    """Mixed in before a detector class of mmdet.

    Args:
        recompute: recompute the norms' outputs in backward instead of keeping them
            (`gn_det.fuse(model, recompute=True)`).
        channels_last: keep weights and maps in torch.channels_last from the image on.
        *args: the detector's own settings, as are `**kwargs`.
    """

    def __init__(
        self,
        *args: Any,
        recompute: bool = False,
        channels_last: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.channels_last = channels_last
        report = fuse(self, recompute=recompute)
        print_log(str(report).splitlines()[0], logger='current')
        if channels_last:
            self.to(memory_format=torch.channels_last)

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """The detector's maps of (N, 3, H, W) images, in the layout asked for."""
        if self.channels_last:
            batch_inputs = batch_inputs.contiguous(memory_format=torch.channels_last)
        return super().extract_feat(batch_inputs)


@MODELS.register_module()
class FusedMaskRCNN(FusedDetector, MaskRCNN):
    """Mask R-CNN with its Group Norms fused."""


@MODELS.register_module()
class FusedFasterRCNN(FusedDetector, FasterRCNN):
    """Faster R-CNN with its Group Norms fused."""


@MODELS.register_module()
class FusedCascadeRCNN(FusedDetector, CascadeRCNN):
    """Cascade R-CNN, with or without masks, with its Group Norms fused."""

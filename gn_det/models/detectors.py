"""mmdet's two-stage detectors, fused as they are built.

A config names one of these types where mmdet's says `MaskRCNN`; it takes the same
settings and three more, and whatever builds it (Runner, `init_detector`,
`DetInferencer`, `MODELS.build`) gets a fused model. Names and shapes of the state dict
are the stock model's.
"""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.detectors import CascadeRCNN, FasterRCNN, MaskRCNN
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor

from gn_det.fusion import fuse
from gn_det.fusion.valid_region import Regions, use_regions


class FusedDetector:
    """Mixed in before a detector class of mmdet.

    Args:
        recompute: recompute the norms' outputs in backward instead of keeping them
            (`gn_det.fuse(model, recompute=True)`).
        channels_last: keep weights and maps in torch.channels_last from the image on.
        valid_region: normalise each image of a batch over its own region, so that
            what it is batched with does not change its boxes and masks: see
            `gn_det.fusion.valid_region`. It costs time, as each norm of the backbone,
            the neck and the RPN then runs once per image and copies its map.
        *args: the detector's own settings, as are `**kwargs`.
    """

    def __init__(
        self,
        *args: Any,
        recompute: bool = False,
        channels_last: bool = False,
        valid_region: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.channels_last = channels_last
        report = fuse(self, recompute=recompute)
        print_log(str(report).splitlines()[0], logger='current')
        if channels_last:
            self.to(memory_format=torch.channels_last)
        self.regions = Regions() if valid_region else None
        if self.regions is not None:
            use_regions(self.regions, self.backbone, self.neck, self.rpn_head)

    def loss(self, batch_inputs: Tensor, batch_data_samples: list) -> dict:
        """The losses of a batch."""
        self._announce(batch_inputs, batch_data_samples)
        return super().loss(batch_inputs, batch_data_samples)

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: list, rescale: bool = True
    ) -> list:
        """The detections of a batch."""
        self._announce(batch_inputs, batch_data_samples)
        return super().predict(batch_inputs, batch_data_samples, rescale)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: list) -> tuple:
        self._announce(batch_inputs, batch_data_samples)
        return super()._forward(batch_inputs, batch_data_samples)

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """The detector's maps of (N, 3, H, W) images, in the layout asked for.

        With `valid_region` images that came without their samples fill the batch.
        """
        if self.channels_last:
            batch_inputs = batch_inputs.contiguous(memory_format=torch.channels_last)
        if self.regions is None:
            return super().extract_feat(batch_inputs)
        self.regions.begin(batch_inputs.shape[2:])
        return tuple(map(self.regions.continued, super().extract_feat(batch_inputs)))

    def _announce(self, batch_inputs: Tensor, samples: list) -> None:
        if self.regions is not None:
            self.regions.announce([sample.pad_shape for sample in samples])


@MODELS.register_module()
class FusedMaskRCNN(FusedDetector, MaskRCNN):
    """Mask R-CNN with its Group Norms fused."""


@MODELS.register_module()
class FusedFasterRCNN(FusedDetector, FasterRCNN):
    """Faster R-CNN with its Group Norms fused."""


@MODELS.register_module()
class FusedCascadeRCNN(FusedDetector, CascadeRCNN):
    """Cascade R-CNN, with or without masks, with its Group Norms fused."""

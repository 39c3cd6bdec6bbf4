"""The detectors that are compared: Mask R-CNN with Group Norm or frozen Batch Norm."""

from collections.abc import Iterator
from dataclasses import dataclass

# Before mmdet: it supplies mmcv's operators where none are compiled.
from gn_det.workbench.inputs.config import load_config

# isort: split
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict
from torch import Tensor, nn

from benchmarks.results import ROOT
from benchmarks.shapes import GROUPS

DEPTHS = {'r50': 50, 'r101': 101}
_GN = 'configs/gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py'
_BN = 'configs/ablation/mask-rcnn_r50-bn_fpn_4conv1fc_2x_coco.py'
_BN_2FC = 'configs/ablation/mask-rcnn_r50-bn_fpn_2x_coco.py'


class AffineBatchNorm(nn.BatchNorm2d):
    """Frozen Batch Norm as `x * scale + shift`, which keeps nothing for backward."""

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        size = (1, -1, 1, 1)
        return x * scale.to(x.dtype).view(size) + shift.to(x.dtype).view(size)


@dataclass(frozen=True)
class Variant:
    """A config of the project and what is changed in it."""

    title: str
    config: str = _GN
    stock: bool = False
    """mmdet's own detector and torch's Group Norm instead of the fused ones."""

    recompute: bool = False
    affine: bool = False
    """Batch Norms replaced by `AffineBatchNorm`."""

    @property
    def group_norm(self) -> bool:
        return self.config == _GN


VARIANTS = {
    'stock_gn': Variant('stock GN', stock=True),
    'fused_gn': Variant('fused GN'),
    'fused_gn_recompute': Variant('fused GN, recompute', recompute=True),
    'frozen_bn_4conv1fc': Variant('frozen BN, 4conv1fc', _BN),
    'frozen_bn_2fc': Variant('frozen BN, 2fc', _BN_2FC),
}
# Not mmdet's frozen BN, but detectron2's.
AFFINE = Variant('frozen BN as x·scale + shift, 4conv1fc', _BN, affine=True)


def model_config(variant: Variant, model: str) -> ConfigDict:
    """The model of a variant's config, 'r50' or 'r101', without pretrained weights."""
    config = load_config(str(ROOT / variant.config)).model
    config.backbone.update(depth=DEPTHS[model], init_cfg=None)
    if variant.stock:
        config.type = 'MaskRCNN'
        for part in _normed_parts(config):
            part.norm_cfg = dict(type='GN', num_groups=GROUPS, requires_grad=True)
    if variant.recompute:
        config.recompute = True
    return config


def build(
    variant: Variant,
    model: str,
    *,
    frozen_stages: int | None = None,
    channels_last: bool = False,
    regions: int | None = None,
) -> nn.Module:
    """The detector with random weights, in training mode, on the default device.

    Args:
        variant: one of `VARIANTS`.
        model: 'r50' or 'r101'.
        frozen_stages: stages that are not trained, -1 for none; the config's own by
            default.
        channels_last: weights and maps in torch.channels_last.
        regions: regions an image to train on; the config's 512 by default.
    """
    register_all_modules()
    config = model_config(variant, model)
    if frozen_stages is not None:
        config.backbone.frozen_stages = frozen_stages
    if regions is not None:
        config.train_cfg.rcnn.sampler.num = regions
    fused = variant.group_norm and not variant.stock
    if channels_last and fused:
        config.channels_last = True
    built = MODELS.build(config)
    if channels_last and not fused:
        built.to(memory_format=torch.channels_last)
    if variant.affine:
        for module in built.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = AffineBatchNorm
    return built.train()


def _normed_parts(config: ConfigDict) -> Iterator[ConfigDict]:
    yield config.backbone
    yield config.neck
    yield config.roi_head.bbox_head
    yield config.roi_head.mask_head

"""What a converter gives back: weights, what they need, and what was left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from gn_det.workbench.errors import UserError
from gn_det.workbench.loading.weights import plain_names
from gn_det.workbench.zoo.convert.layout import Detector, ResNet

DETECTRON_MEAN = (102.9801, 115.9465, 122.7717)
CAFFE_MEAN = (103.530, 116.280, 123.675)
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Preprocessing:
    """How images have to look: (pixel − mean) / std, BGR unless `bgr_to_rgb`."""

    mean: tuple[float, ...] = CAFFE_MEAN
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    bgr_to_rgb: bool = False

    def as_config(self) -> dict[str, Any]:
        """The settings of mmdet's data preprocessor, in plain lists."""
        return dict(
            mean=list(self.mean), std=list(self.std), bgr_to_rgb=self.bgr_to_rgb
        )


IMAGENET = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, bgr_to_rgb=True)


@dataclass
class Conversion:
    """Weights in mmdet's names, with what a user has to know about them.

    Attributes:
        state_dict: the weights.
        model: what was recognised; None where any model is taken.
        preprocessing: what the weights expect of images; None if it is not known.
        config: the config of the zoo that goes with them, if there is one.
        options: `--cfg-options` for that config, dotted keys and values.
        skipped: how many entries of the file were left out, by reason.
        notes: sentences for the user.
        meta: further entries of the checkpoint's meta.
    """

    state_dict: dict[str, Tensor]
    model: ResNet | Detector | None = None
    preprocessing: Preprocessing | None = None
    config: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def is_backbone(self) -> bool:
        """Whether there is no detector around the ResNet."""
        return isinstance(self.model, ResNet)


def describe(model: ResNet | Detector | None) -> str:
    """`Mask R-CNN R-50 with 80 classes` and its like."""
    if model is None:
        return 'a model'
    if isinstance(model, ResNet):
        if model.depth:
            name = f'ResNet-{model.depth}'
        else:
            blocks = '-'.join(map(str, model.blocks))
            name = f'ResNet of {blocks} blocks, {model.groups} × {model.width} wide'
        return f'{name} ({model.norm.upper()})'
    kind = 'Mask' if model.with_mask else 'Faster'
    return (
        f'{kind} R-CNN on {describe(model.backbone)} with {model.num_classes} classes'
    )


def config_options(
    preprocessing: Preprocessing, of_config: Preprocessing
) -> dict[str, Any]:
    """What a config whose images look like `of_config` has to be told."""
    wanted, given = preprocessing.as_config(), of_config.as_config()
    return {
        f'model.data_preprocessor.{key}': value
        for key, value in wanted.items()
        if value != given[key]
    }


def unwrap(content: Any, *keys: str) -> dict[str, Any]:
    """The named weights inside a checkpoint.

    Args:
        content: what the file holds.
        *keys: where weights may lie; the first that is there is taken, and the content
            itself where none is.

    Raises:
        UserError: if there is no dict of named values.
    """
    if isinstance(content, dict):
        content = next((content[key] for key in keys if key in content), content)
    if not isinstance(content, dict) or not content:
        raise UserError('holds no named weights')
    return dict(plain_names({str(name): value for name, value in content.items()}))

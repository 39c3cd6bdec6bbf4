"""Names and shapes of the weights of mmdet's ResNet and of its GN Mask R-CNN.

A converter goes through this list and asks its source for each name, so that nothing
can be forgotten. A test holds it against the built models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_DEPTHS = {
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
    (True, (3, 8, 36, 3)): 152,
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
}

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class ResNet:
    """A ResNet of four stages.

    Attributes:
        blocks: how many blocks each stage has.
        bottleneck: three convolutions per block, or two.
        width: channels inside the blocks of the first stage.
        groups: of the 3×3 convolutions (ResNeXt).
        norm: 'gn' or 'bn', as mmdet abbreviates it in names.
    """

    blocks: tuple[int, ...]
    bottleneck: bool = True
    width: int = 64
    groups: int = 1
    norm: str = 'gn'

    @property
    def depth(self) -> int | None:
        """The number in the name of a plain ResNet; None for any other."""
        if (self.width, self.groups) != (64, 1):
            return None
        return _DEPTHS.get((self.bottleneck, self.blocks))

    @property
    def short_name(self) -> str | None:
        """As names of configs have it: `r50`, `x101-32x4d`; None for any other."""
        if self.depth:
            return f'r{self.depth}'
        depth = _DEPTHS.get((self.bottleneck, self.blocks))
        if depth and (self.width, self.groups) == (128, 32):
            return f'x{depth}-32x4d'
        return None

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of the four maps."""
        expansion = 4 if self.bottleneck else 1
        return tuple(64 * expansion * 2**stage for stage in range(4))

    def shapes(self) -> Shapes:
        """The state dict of mmdet's ResNet, counters of Batch Norm left out."""
        shapes: Shapes = {'conv1.weight': (64, 3, 7, 7)}
        self._add_norm(shapes, f'{self.norm}1', 64)
        before = 64
        for stage, (count, after) in enumerate(
            zip(self.blocks, self.out_channels, strict=True)
        ):
            inner = self.width * 2**stage
            for block in range(count):
                name = f'layer{stage + 1}.{block}'
                for i, (c_out, c_in, size) in enumerate(
                    self._convs(before, inner, after), start=1
                ):
                    shapes[f'{name}.conv{i}.weight'] = (c_out, c_in, size, size)
                    self._add_norm(shapes, f'{name}.{self.norm}{i}', c_out)
                if block == 0 and (stage > 0 or before != after):
                    shapes[f'{name}.downsample.0.weight'] = (after, before, 1, 1)
                    self._add_norm(shapes, f'{name}.downsample.1', after)
                before = after
        return shapes

    def _convs(self, before: int, inner: int, after: int) -> list[tuple[int, int, int]]:
        if not self.bottleneck:
            return [(inner, before, 3), (after, inner, 3)]
        return [
            (inner, before, 1),
            (inner, inner // self.groups, 3),
            (after, inner, 1),
        ]

    def _add_norm(self, shapes: Shapes, name: str, channels: int) -> None:
        parameters = ['weight', 'bias']
        if self.norm == 'bn':
            parameters += ['running_mean', 'running_var']
        shapes.update({f'{name}.{parameter}': (channels,) for parameter in parameters})


@dataclass(frozen=True)
class Detector:
    """mmdet's Faster or Mask R-CNN with FPN and GN everywhere, 4conv1fc box head."""

    backbone: ResNet
    num_classes: int
    with_mask: bool = True

    def shapes(self) -> Shapes:
        """The state dict of the model."""
        shapes: Shapes = {
            f'backbone.{name}': shape for name, shape in self.backbone.shapes().items()
        }
        for level, channels in enumerate(self.backbone.out_channels):
            _add_conv_gn(shapes, f'neck.lateral_convs.{level}', channels, 1)
        for level in range(4):
            _add_conv_gn(shapes, f'neck.fpn_convs.{level}', 256, 3)
        _add(shapes, 'rpn_head.rpn_conv', (256, 256, 3, 3))
        _add(shapes, 'rpn_head.rpn_cls', (3, 256, 1, 1))
        _add(shapes, 'rpn_head.rpn_reg', (12, 256, 1, 1))
        box, mask, classes = (
            'roi_head.bbox_head',
            'roi_head.mask_head',
            self.num_classes,
        )
        for i in range(4):
            _add_conv_gn(shapes, f'{box}.shared_convs.{i}', 256, 3)
        _add(shapes, f'{box}.shared_fcs.0', (1024, 256 * 7 * 7))
        _add(shapes, f'{box}.fc_cls', (classes + 1, 1024))
        _add(shapes, f'{box}.fc_reg', (4 * classes, 1024))
        if self.with_mask:
            for i in range(4):
                _add_conv_gn(shapes, f'{mask}.convs.{i}', 256, 3)
            _add(shapes, f'{mask}.upsample', (256, 256, 2, 2))
            _add(shapes, f'{mask}.conv_logits', (classes, 256, 1, 1))
        return shapes


def _add(shapes: Shapes, name: str, weight: tuple[int, ...]) -> None:
    shapes[f'{name}.weight'] = weight
    shapes[f'{name}.bias'] = weight[:1]


def _add_conv_gn(shapes: Shapes, name: str, channels: int, size: int) -> None:
    shapes[f'{name}.conv.weight'] = (256, channels, size, size)
    shapes[f'{name}.gn.weight'] = shapes[f'{name}.gn.bias'] = (256,)


def recognise_resnet(
    shape_of: Callable[[str], tuple[int, ...] | None], norm: str = 'gn'
) -> ResNet | None:
    """The ResNet of which a file holds the weights, or None if there is none.

    Args:
        shape_of: the shape of a weight by its name in mmdet, or None if it is missing.
        norm: which norm the file holds.
    """
    blocks = []
    for stage in range(1, 5):
        count = 0
        while shape_of(f'layer{stage}.{count}.conv1.weight') is not None:
            count += 1
        blocks.append(count)
    first, second = (shape_of(f'layer1.0.conv{i}.weight') for i in (1, 2))
    if not all(blocks) or any(not s or len(s) != 4 for s in (first, second)):
        return None
    if not second[1]:
        return None
    return ResNet(
        blocks=tuple(blocks),
        bottleneck=shape_of('layer1.0.conv3.weight') is not None,
        width=first[0],
        groups=max(first[0] // second[1], 1),
        norm=norm,
    )


def recognise_detector(
    shape_of: Callable[[str], tuple[int, ...] | None], backbone: ResNet
) -> Detector | None:
    """The detector on a backbone, or None if the file holds no class scores.

    Args:
        shape_of: as in `recognise_resnet`, with the names of the whole detector.
        backbone: what `recognise_resnet` found.
    """
    scores = shape_of('roi_head.bbox_head.fc_cls.weight')
    if scores is None or len(scores) != 2:
        return None
    return Detector(
        backbone=backbone,
        num_classes=scores[0] - 1,
        with_mask=shape_of('roi_head.mask_head.conv_logits.weight') is not None,
    )

"""Generated images, ground truth and proposals: the same work for every detector."""

import contextlib
import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from unittest import mock

# Before mmdet: it supplies mmcv's operators where none are compiled.
import gn_det  # noqa: F401

# isort: split
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from torch import Tensor, nn

OBJECTS = 10
CLASSES = 80
_STRIDE = 32
# Of the proposals, those around an object; the sampler wants 128 of 512 positive.
_NEAR = 0.4


def padded(height: int, width: int) -> tuple[int, int]:
    """The next multiples of the coarsest level's stride."""
    return math.ceil(height / _STRIDE) * _STRIDE, math.ceil(width / _STRIDE) * _STRIDE


@dataclass(frozen=True)
class Batch:
    """Normalised images (N, 3, H, W) as padded, what is in them, and where to look."""

    images: Tensor
    samples: list[DetDataSample]
    proposals: list[InstanceData]


def make_batch(
    count: int,
    height: int,
    width: int,
    device: torch.device | str,
    memory_format: torch.memory_format = torch.contiguous_format,
    proposals: int = 1000,
    seed: int = 0,
) -> Batch:
    """`count` images with ten elliptic objects each, and proposals for each."""
    generator = torch.Generator().manual_seed(seed)
    size = padded(height, width)
    images = torch.randn(count, 3, *size, generator=generator)
    images[..., height:, :] = 0
    images[..., width:] = 0
    samples, regions = [], []
    for _ in range(count):
        boxes = _boxes(OBJECTS, height, width, generator)
        truth = InstanceData(
            bboxes=boxes.to(device),
            labels=torch.randint(CLASSES, (OBJECTS,), generator=generator).to(device),
            masks=_ellipses(boxes, *size),
        )
        metainfo = {
            'img_shape': (height, width),
            'ori_shape': (height, width),
            'pad_shape': size,
            'batch_input_shape': size,
            'scale_factor': (1.0, 1.0),
        }
        samples.append(DetDataSample(metainfo=metainfo, gt_instances=truth))
        found = _proposals(proposals, boxes, height, width, generator)
        regions.append(
            InstanceData(
                bboxes=found.to(device),
                scores=torch.rand(len(found), generator=generator).to(device),
                labels=torch.zeros(len(found), dtype=torch.long, device=device),
            )
        )
    images = images.to(device).contiguous(memory_format=memory_format)
    return Batch(images, samples, regions)


def _boxes(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Boxes (x1, y1, x2, y2) of a tenth to a half of the image's sides, inside it."""
    limits = torch.tensor([width, height], dtype=torch.float)
    sides = torch.empty(count, 2).uniform_(0.1, 0.5, generator=generator) * limits
    corner = torch.rand(count, 2, generator=generator) * (limits - sides)
    return torch.cat([corner, corner + sides], 1)


def _proposals(
    count: int, boxes: Tensor, height: int, width: int, generator: torch.Generator
) -> Tensor:
    near = boxes.repeat(math.ceil(count * _NEAR / len(boxes)), 1)
    sides = (near[:, 2:] - near[:, :2]).repeat(1, 2)
    near = near + 0.08 * sides * torch.randn(near.shape, generator=generator)
    near = near.clamp(min=0)
    near[:, 0::2].clamp_(max=width)
    near[:, 1::2].clamp_(max=height)
    rest = _boxes(count - len(near), height, width, generator)
    return torch.cat([near, rest])


def _ellipses(boxes: Tensor, height: int, width: int) -> BitmapMasks:
    y = torch.arange(height).view(1, -1, 1) + 0.5
    x = torch.arange(width).view(1, 1, -1) + 0.5
    x1, y1, x2, y2 = (edge.view(-1, 1, 1) for edge in boxes.unbind(1))
    across = (2 * x - x1 - x2) / (x2 - x1)
    down = (2 * y - y1 - y2) / (y2 - y1)
    inside = across**2 + down**2 <= 1
    return BitmapMasks(inside.to(torch.uint8).numpy(), height, width)


@contextlib.contextmanager
def given_proposals(model: nn.Module, batch: Batch) -> Iterator[None]:
    """The RPN makes its proposals, and the batch's are used.

    The heads of an untrained network would otherwise see a handful of positive regions,
    another handful in each variant; and which ones is a discrete choice, in which
    rounding can tip the scales.
    """
    own = model.rpn_head.predict_by_feat

    def given(*args, **kwargs) -> list[InstanceData]:
        own(*args, **kwargs)
        return copy.deepcopy(batch.proposals)

    with mock.patch.object(model.rpn_head, 'predict_by_feat', given):
        yield


def prefer_one_class(model: nn.Module) -> None:
    """Scores above the threshold, so that inference ends with boxes and masks."""
    with torch.no_grad():
        model.roi_head.bbox_head.fc_cls.bias[0] = 5.0

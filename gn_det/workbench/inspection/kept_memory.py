"""A detector's parts run one after the other, and what autograd keeps of them.

On fake tensors, which have shapes and storages but no data, neither memory nor a GPU is
needed. What reaches the hooks of saved tensors is counted once per storage; parameters
and buffers are there anyway and do not count. Autocast's 16-bit copies of weights do:
they come into being in the step and live until backward.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from unittest import mock

import torch
from torch import Tensor, nn

from gn_det.ops import recompute

PARTS = ('backbone', 'neck', 'rpn_head', 'box_head', 'mask_head')
TRUNK = ('backbone', 'neck')
# An image: 512 regions, of which a quarter is positive and gets a mask.
REGIONS = (512, 128)
# Of RoIAlign for boxes and masks, and before a shared head (C4).
_BOX_SIDE, _MASK_SIDE = 7, 14


@dataclass
class Kept:
    """Bytes that one forward pass keeps for backward, by part of the detector."""

    parts: Counter[str] = field(default_factory=Counter)

    @property
    def trunk(self) -> int:
        """Backbone and neck."""
        return sum(self.parts[part] for part in TRUNK)

    @property
    def total(self) -> int:
        """All parts."""
        return self.parts.total()


class _Recorder:
    """Holds on to what autograd keeps, under the part that came to it first."""

    def __init__(self) -> None:
        self.part = ''
        self._held: list[tuple[str, object]] = []

    def hold(self, kept: object) -> object:
        self._held.append((self.part, kept))
        return kept

    def count(self, model: nn.Module) -> Kept:
        seen = {t.untyped_storage()._cdata for t in model.parameters()}
        seen |= {t.untyped_storage()._cdata for t in model.buffers()}
        kept = Kept()
        for part, held in self._held:
            for tensor in _tensors(held):
                storage = tensor.untyped_storage()
                if storage._cdata not in seen:
                    seen.add(storage._cdata)
                    kept.parts[part] += storage.nbytes()
        return kept


def _tensors(held: object) -> list[Tensor]:
    """The tensors behind what a hook returned: itself, or what recomputation needs."""
    return [held] if isinstance(held, Tensor) else held.tensors()


@contextlib.contextmanager
def _recording(recorder: _Recorder, recomputing: bool) -> Iterator[None]:
    if not recomputing:
        with torch.autograd.graph.saved_tensors_hooks(recorder.hold, lambda t: t):
            yield
        return
    pack = recompute._Region.pack

    def hold(region: recompute._Region, tensor: Tensor) -> object:
        return recorder.hold(pack(region, tensor))

    with (
        mock.patch.object(recompute._Region, 'pack', hold),
        recompute.recompute_activations(),
    ):
        yield


def run_parts(
    model: nn.Module,
    images: Tensor,
    regions: tuple[int, int] = REGIONS,
    enter: Callable[[str], object] = lambda part: None,
) -> list[Tensor]:
    """A forward pass from images to the heads' outputs.

    Losses, proposals and RoIAlign are left out: the regions' features are made here,
    in the dtype of the maps they would be cut from.

    Args:
        model: a detector of mmdet with one or two stages.
        images: (N, 3, H, W).
        regions: those of box and mask heads, an image.
        enter: is told each part by name before it runs.

    Returns:
        All outputs, so that they stay alive.
    """
    enter('backbone')
    maps = model.backbone(images)
    if model.with_neck:
        enter('neck')
        maps = model.neck(maps)
    outputs = [*maps]
    for name, part in (('rpn_head', 'rpn_head'), ('bbox_head', 'box_head')):
        head = getattr(model, name, None)
        if head is not None:
            enter(part)
            outputs += _flat(head(maps))
    roi = getattr(model, 'roi_head', None)
    if roi is None:
        return outputs
    shared = roi.shared_head if roi.with_shared_head else None
    for part, name, side, count in (
        ('box_head', 'bbox_head', _BOX_SIDE, regions[0]),
        ('mask_head', 'mask_head', _MASK_SIDE, regions[1]),
    ):
        heads = getattr(roi, name, None)
        if heads is None:
            continue
        enter(part)
        for head in heads if isinstance(heads, nn.ModuleList) else [heads]:
            side = _MASK_SIDE if shared is not None else side
            shape = (count * images.shape[0], maps[0].shape[1], side, side)
            features = maps[0].new_ones(shape).requires_grad_()
            outputs += _flat((head(shared(features) if shared else features),))
    return outputs


def _flat(outputs: tuple) -> Iterator[Tensor]:
    for output in outputs:
        yield from (output,) if isinstance(output, Tensor) else _flat(output)


def kept_by(
    model: nn.Module,
    images: Tensor,
    *,
    amp: bool,
    recomputing: bool = False,
    regions: tuple[int, int] = REGIONS,
) -> tuple[Kept, list[Tensor]]:
    """What a forward pass keeps, fake or real, and its outputs.

    Args:
        model: a detector of mmdet, in training mode.
        images: (N, 3, H, W).
        amp: under autocast to bfloat16 on the images' device.
        recomputing: inside `gn_det.ops.recompute_activations`.
        regions: those of box and mask heads, an image.
    """
    recorder = _Recorder()

    def enter(part: str) -> None:
        recorder.part = part

    autocast = torch.autocast(images.device.type, torch.bfloat16, enabled=amp)
    with autocast, _recording(recorder, recomputing):
        outputs = run_parts(model, images, regions, enter)
    return recorder.count(model), outputs

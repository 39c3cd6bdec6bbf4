"""What autograd keeps for backward, counted without the memory or a GPU.

The detector runs on fake tensors, which have shapes and storages but no data. What
reaches the hooks of saved tensors is counted once per storage; parameters and buffers
are there anyway and do not count. Autocast's 16-bit copies of weights do: they come
into being in the step and live until backward.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.bytes_model import moved_bytes
from gn_det.ops import recompute

PARTS = ('backbone', 'neck', 'rpn_head', 'box_head', 'mask_head')
TRUNK = ('backbone', 'neck')
# An image: 512 regions, of which a quarter is positive and gets a mask.
REGIONS = (512, 128)


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
        return self.parts.total()


@dataclass
class NormCalls:
    """Forward passes of fused norms, and the bytes they move by the byte model."""

    calls: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Counted:
    """A training step in numbers."""

    kept: Kept
    forward: NormCalls
    recomputed: NormCalls
    """The norms' forward passes that backward makes."""


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


@contextlib.contextmanager
def cuda_norm_policy() -> Iterator[None]:
    """`F.group_norm` under CPU autocast as under CUDA's: in fp32, with an fp32 result.

    CUDA's autocast has group_norm on its fp32 list, the CPU's has not.
    """
    group_norm = F.group_norm

    def in_fp32(x, num_groups, weight=None, bias=None, eps=1e-5):
        if torch.is_autocast_enabled('cpu'):
            x = x.float()
        return group_norm(x, num_groups, weight, bias, eps)

    with mock.patch.object(F, 'group_norm', in_fp32):
        yield


def run_parts(
    model: nn.Module,
    images: Tensor,
    regions: tuple[int, int] = REGIONS,
    enter: Callable[[str], object] = lambda part: None,
) -> list[Tensor]:
    """A training step's forward pass from images to the heads' outputs.

    Losses, proposals and RoIAlign are left out: the regions' features are made here,
    in the dtype of the maps they would be cut from. `regions` are those of box and mask
    head, an image. `enter` is told each part by name before it runs. Returns all
    outputs, so that they stay alive.
    """
    batch, roi = images.shape[0], model.roi_head
    enter('backbone')
    maps = model.backbone(images)
    enter('neck')
    maps = model.neck(maps)
    enter('rpn_head')
    outputs = [*maps, *_flat(model.rpn_head(maps))]

    def cut(count: int, size: int) -> Tensor:
        features = maps[0].new_ones(count * batch, maps[0].shape[1], size, size)
        return features.requires_grad_()

    enter('box_head')
    outputs += roi.bbox_head(cut(regions[0], 7))
    enter('mask_head')
    return [*outputs, roi.mask_head(cut(regions[1], 14))]


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
        model: a two-stage detector of mmdet with masks, in training mode.
        images: (N, 3, H, W).
        amp: under autocast to bfloat16 on the images' device.
        recomputing: inside `gn_det.ops.recompute_activations`.
        regions: those of box and mask head, an image.
    """
    recorder = _Recorder()

    def enter(part: str) -> None:
        recorder.part = part

    autocast = torch.autocast(images.device.type, torch.bfloat16, enabled=amp)
    with autocast, _recording(recorder, recomputing):
        outputs = run_parts(model, images, regions, enter)
    return recorder.count(model), outputs


class _NormCounter(TorchDispatchMode):
    """Counts the forward passes of the fused norm while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.found = NormCalls()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.gn_det.group_norm.default:
            x, activation, residual = args[0], args[5], args[6]
            kind = activation or 'plain'
            if residual is not None:
                kind = 'residual_relu'
            self.found.calls += 1
            self.found.bytes += moved_bytes('fwd', kind, x.numel(), x.itemsize)
        return function(*args, **(kwargs or {}))


def backward(outputs: list[Tensor]) -> None:
    """Runs backward from every output, with ones."""
    roots = [output for output in outputs if output.requires_grad]
    torch.autograd.backward(roots, [torch.ones_like(root) for root in roots])


def count_fake(
    make: Callable[[], nn.Module],
    size: tuple[int, int, int],
    *,
    amp: bool,
    recomputing: bool = False,
    norm_policy: bool = False,
) -> Counted:
    """A training step of a model that is made and run on fake tensors.

    Args:
        make: makes the model.
        size: images, and their height and width as padded.
        amp: under autocast to bfloat16.
        recomputing: inside `gn_det.ops.recompute_activations`.
        norm_policy: with `cuda_norm_policy`.
    """
    batch, height, width = size
    policy = cuda_norm_policy() if norm_policy else contextlib.nullcontext()
    with FakeTensorMode(), policy:
        model = make()
        images = torch.zeros(batch, 3, height, width)
        with _NormCounter() as forward:
            kept, outputs = kept_by(model, images, amp=amp, recomputing=recomputing)
        with _NormCounter() as recomputed:
            if recomputing:
                backward(outputs)
    return Counted(kept, forward.found, recomputed.found)

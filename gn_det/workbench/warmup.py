"""Which kernels the training of a config needs, found by running its model on nothing.

Backbone, neck and heads run once on tensors without memory. Each norm's call is noted
with its place: maps of the image at their stride, features of regions at their size.
The calls are then made again for every size that batches of images can have.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from gn_det.layers.group_norm import FUSED_NORMS
from gn_det.ops import triton_launch
from gn_det.ops.precompile import Kernel, kernels_of
from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.building import name_wrong_settings

_NOTED = (800, 1344)
_DIVISOR = 32
_LONGEST = 3
# The number has no part in what is compiled for the heads' small maps.
_REGIONS = 512


def kernels_of_config(
    cfg: Config,
    sms: int,
    sizes: Iterable[tuple[int, int]] | None = None,
) -> set[Kernel]:
    """The kernels of a training, on a GPU of `sms` multiprocessors.

    `sizes` are the sides of the batches; by default those of images of any form up to 3
    to 1, at the resolutions of the config.

    Raises:
        UserError: for a model that cannot be built or has no norm of ours, and for
            image sizes that are not those of a Resize.
    """
    if sizes is None:
        sizes = _padded_sizes(cfg)
    calls = _calls(cfg)
    if not calls:
        raise UserError(
            f'{cfg.filename}: the model has no FusedGN, so there is nothing to compile'
        )
    channels_last = cfg.model.get('channels_last')
    layout = torch.channels_last if channels_last else torch.contiguous_format
    with kernels_of(sms) as found:
        for size in sizes:
            for call in calls:
                call.repeat(size, layout)
    return found


def _padded_sizes(cfg: Config) -> set[tuple[int, int]]:
    """Short and long sides; which is the height makes no difference to a kernel."""
    found = set()
    for long_limit, short_limit in _scales(cfg):
        for percent in range(100, 100 * _LONGEST + 1, 2):
            long = short_limit * percent / 100
            scale = min(1.0, long_limit / long)
            short, long = (int(side * scale + 0.5) for side in (short_limit, long))
            found.add(
                (-(-short // _DIVISOR) * _DIVISOR, -(-long // _DIVISOR) * _DIVISOR)
            )
    return found


def _scales(cfg: Config) -> Iterator[tuple[int, int]]:
    """Long and short limit of each resolution of the training images."""
    scales = [
        scale
        for step in cfg.get('train_pipeline') or []
        if step['type'] in ('Resize', 'RandomChoiceResize') and step.get('keep_ratio')
        for scale in step.get('scales') or [step.get('scale')]
    ]
    if not scales:
        raise UserError(
            f'{cfg.filename}: train_pipeline has no Resize or RandomChoiceResize with '
            'keep_ratio=True; the sizes of its maps are known only when it runs'
        )
    for scale in scales:
        yield max(scale), min(scale)


@dataclass(frozen=True)
class _Call:
    """A call of the op; `needs` are those of a backward call, None of a forward one.

    `shape` is that of x, for maps of the image (`of_image`) at size `_NOTED`. `second`:
    with a residual, or in backward with what is kept of one.
    """

    shape: tuple[int, ...]
    of_image: bool
    dtype: torch.dtype
    G: int
    vectors: tuple[torch.dtype | None, ...]
    activation: str | None
    second: bool
    needs: tuple[bool, ...] | None

    def repeat(self, size: tuple[int, int], layout: torch.memory_format) -> None:
        """The call for images of this size, on the meta device."""
        N, C, *sides = self.shape
        if self.of_image:
            strides = (
                2 ** round(math.log2(noted / side))
                for noted, side in zip(_NOTED, sides, strict=True)
            )
            sides = [-(-s // stride) for s, stride in zip(size, strides, strict=True)]
        x = torch.empty((N, C, *sides), dtype=self.dtype, device='meta')
        if x.ndim == 4:
            x = x.contiguous(memory_format=layout)
        weight, bias = (
            None if dtype is None else torch.empty(C, dtype=dtype, device='meta')
            for dtype in self.vectors
        )
        second = x if self.second else None
        norm = (x, self.G, weight, bias, 1e-5, self.activation, second)
        if self.needs is None:
            triton_launch.group_norm_fwd(*norm)
        else:
            mean = torch.empty(N, self.G, device='meta')
            triton_launch.group_norm_bwd(x, *norm, mean, mean, self.needs)


class _Noting(TorchDispatchMode):
    """Notes the op's calls, which fake tensors take through the dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.of_image: dict[tuple[int, ...], bool] = {}
        self.calls: dict[_Call, None] = {}
        self.in_regions = False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None) -> Any:
        op = torch.ops.gn_det
        if function is op.group_norm.default:
            x, G, weight, bias, _, activation, second, _ = args
            self.of_image.setdefault(tuple(x.shape), not self.in_regions)
            self._note(x, G, (weight, bias), activation, second, None)
        elif function is op.group_norm_backward.default:
            _, x, G, weight, bias, _, activation, second, _, _, needs, _ = args
            self._note(x, G, (weight, bias), activation, second, tuple(needs))
        return function(*args, **(kwargs or {}))

    def _note(self, x, G, vectors, activation, second, needs) -> None:
        shape = tuple(x.shape)
        dtypes = tuple(None if vector is None else vector.dtype for vector in vectors)
        call = _Call(
            shape,
            self.of_image[shape],
            x.dtype,
            G,
            dtypes,
            activation,
            second is not None,
            needs,
        )
        self.calls[call] = None


def _calls(cfg: Config) -> list[_Call]:
    """Every kind of call of one training step."""
    wrapper = cfg.get('optim_wrapper') or {}
    autocast = contextlib.nullcontext()
    if wrapper.get('type') == 'AmpOptimWrapper':
        dtype = getattr(torch, wrapper.get('dtype') or 'float16')
        autocast = torch.autocast('cpu', dtype)
    batch = (cfg.get('train_dataloader') or {}).get('batch_size', 1)
    register_all_modules(init_default_scope=True)
    settings = cfg.model.copy()
    # Fake tensors cannot be moved to a format; the calls are, when they are repeated.
    settings.pop('channels_last', None)
    with FakeTensorMode(), _Noting() as noting:
        with name_wrong_settings(cfg):
            model = MODELS.build(settings)
        model.train()
        with autocast:
            outputs = list(_run(model, torch.zeros(batch, 3, *_NOTED), noting))
        roots = [output for output in outputs if output.requires_grad]
        torch.autograd.backward(roots, [torch.ones_like(root) for root in roots])
    return list(noting.calls)


def _run(model: nn.Module, images: Tensor, noting: _Noting) -> Iterator[Tensor]:
    """Outputs of the parts of a detector; of the heads those with norms."""
    maps = model.extract_feat(images)
    yield from maps
    for name in ('rpn_head', 'bbox_head'):
        head = getattr(model, name, None)
        if _is_normed(head):
            yield from _flat(head(maps))
    noting.in_regions = True
    roi_head = getattr(model, 'roi_head', None)
    for kind in ('bbox', 'mask'):
        heads = _listed(getattr(roi_head, f'{kind}_head', None))
        extractors = _listed(getattr(roi_head, f'{kind}_roi_extractor', None))
        for head, extractor in zip(heads, extractors, strict=False):
            size = extractor.roi_layers[0].output_size
            count = _REGIONS * images.shape[0]
            features = maps[0].new_zeros(count, extractor.out_channels, *size)
            features.requires_grad_()
            if roi_head.with_shared_head:
                features = roi_head.shared_head(features)
                yield features
            if _is_normed(head):
                yield from _flat(head(features))


def _is_normed(part: nn.Module | None) -> bool:
    return part is not None and any(
        isinstance(module, FUSED_NORMS) for module in part.modules()
    )


def _listed(part: nn.Module | None) -> list[nn.Module]:
    if part is None:
        return []
    return list(part) if isinstance(part, nn.ModuleList) else [part]


def _flat(outputs: Any) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, (list, tuple)):
        for output in outputs:
            yield from _flat(output)

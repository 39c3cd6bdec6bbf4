"""The norms of a fused model convert nothing: no layout, and under autocast no dtype.

Operators are watched as they run. While a norm runs, forward or backward, an operator
that writes a map of another memory format than it read, or a float32 map of a 16-bit
one, is a conversion by that norm. The torch implementation computes 16-bit maps in a
float32 copy, which the kernels have in registers: it is looked at from outside, by what
goes into `group_norm` and its backward pass and what comes out.
"""

from __future__ import annotations

import contextlib
from collections import Counter

import pytest
import torch
from mmdet.models.backbones import ResNet
from mmdet.models.necks import FPN
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import gn_det
from tests.fusion.detectors import (
    R18,
    batch,
    fused,
    gradients,
    losses,
    model_config,
    randomise,
    stock,
)

SIZE = (64, 96)
IMAGES = 2
NORMS = ('gn_det::', 'aten::native_group_norm', 'aten::group_norm')
# What a norm's own casts and conversions, and everybody's, go through.
COPIES = ('aten::clone', 'aten::contiguous', 'aten::_to_copy', 'aten::copy_')


def format_of(x: Tensor) -> str | None:
    """NCHW or NHWC; None where both are the same or it is no map."""
    if x.ndim != 4 or x.stride()[1:] == (1, 1, 1):
        return None
    nchw = x.is_contiguous()
    nhwc = x.is_contiguous(memory_format=torch.channels_last)
    if nchw == nhwc:
        return None
    return 'nchw' if nchw else 'nhwc'


class Watch(TorchDispatchMode):
    """Counts conversions, and notes formats and dtypes of all norms' maps."""

    def __init__(self) -> None:
        super().__init__()
        self.conversions: Counter[str] = Counter()
        self.casts_up: Counter[str] = Counter()
        self.norms: Counter[tuple] = Counter()
        self.additions = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        before = {id(t): format_of(t) for t in args if isinstance(t, Tensor)}
        found = function(*args, **(kwargs or {}))
        name = function.name().partition('.')[0]
        maps_in = [t for t in tree_leaves((args, kwargs)) if is_map(t)]
        maps_out = [t for t in tree_leaves(found) if is_map(t)]
        if name.startswith(NORMS):
            dtypes = {t.dtype for t in (*maps_in, *maps_out)}
            formats = {format_of(t) for t in (*maps_in, *maps_out)} - {None}
            self.norms[name, frozenset(dtypes), frozenset(formats)] += 1
        elif name.startswith('aten::add'):
            self.additions += len(maps_in) == 2
        elif name in COPIES and maps_in and maps_out:
            source = args[1] if name == 'aten::copy_' else args[0]
            was, now = before.get(id(source)), format_of(maps_out[0])
            if None not in (was, now) and was != now:
                self.conversions[name] += 1
            # The gradients of convolution weights have four dimensions, too.
            is_weight = source.shape[0] != IMAGES
            if source.itemsize == 2 and maps_out[0].itemsize == 4 and not is_weight:
                self.casts_up[name] += 1
        return found


def is_map(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4 and value.is_floating_point()


def body(norm_cfg: dict) -> nn.Module:
    """A small backbone and neck, channels last, with random norms."""
    model = nn.Sequential(
        ResNet(50, base_channels=16, stem_channels=16, norm_cfg=norm_cfg),
        FPN([64, 128, 256, 512], 32, 5, norm_cfg=norm_cfg),
    )
    randomise(model)
    return model.to(memory_format=torch.channels_last)


@contextlib.contextmanager
def cudas_policy():
    """On a CPU what autocast does on CUDA: `group_norm` runs in float32."""
    stock_forward = nn.GroupNorm.forward

    def forward(self, x):
        return stock_forward(self, x.float())

    nn.GroupNorm.forward = forward
    try:
        yield
    finally:
        nn.GroupNorm.forward = stock_forward


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(0)
    x = torch.randn(IMAGES, 3, *SIZE).to(dtype)
    return x.contiguous(memory_format=torch.channels_last)


def watched(model: nn.Module, x: Tensor, precision=None) -> Watch:
    """Forward and backward of a backbone and neck, with upstream gradients in NHWC."""
    precision = precision or contextlib.nullcontext()
    with Watch() as watch:
        with precision:
            outs = model(x)
        upstream = [torch.randn_like(out) for out in outs]
        torch.autograd.backward(outs, upstream)
    assert {format_of(out) for out in outs} <= {'nhwc', None}
    return watch


def test_channels_last_maps_are_converted_nowhere():
    """From the image to the neck's outputs and back, by norms or anything else."""
    model = body(dict(type='FusedGN', num_groups=4))
    gn_det.fuse(model)
    watch = watched(model, images())
    assert sum(watch.norms.values()) == 2 * (53 + 8)
    assert {formats for _, _, formats in watch.norms} <= {
        frozenset({'nhwc'}),
        frozenset(),
    }
    assert not watch.conversions


def test_a_norm_that_converts_is_counted():
    class Converting(gn_det.FusedGroupNorm):
        def forward(self, x, residual=None, activation=None):
            y = super().forward(x.contiguous(), residual, activation)
            return y.contiguous(memory_format=torch.channels_last)

    model = body(dict(type='FusedGN', num_groups=4))
    gn_det.fuse(model)
    model[0].layer2[0].gn2.__class__ = Converting
    # In and out, forward and backward; the gradient takes the input's format.
    assert sum(watched(model, images()).conversions.values()) >= 2


@pytest.mark.parametrize('recompute', [False, True])
def test_a_whole_training_step_in_channels_last(recompute):
    """From the image to the losses no norm converts a map, and none makes others do so.

    RoIAlign and the flattening before a hidden layer work in NCHW. A model whose neck
    and heads have no norms converts as often. Backward, the norms behind those five
    places are given an NCHW gradient, and give it on in their input's format.
    """
    counts = []
    for norm in (True, False):
        config = model_config(R18)
        if not norm:
            for part in (config.neck, *roi_heads(config)):
                part.norm_cfg = None
        model = fused(config, channels_last=True, recompute=recompute)
        randomise(model)
        with Watch() as watch:
            found = losses(model, batch(*SIZE))
            forward = watch.norms.copy()
            gradients(model, found['loss'])
        assert {formats for _, _, formats in forward} == {frozenset({'nhwc'})}
        backward = Counter()
        for (name, _, formats), count in watch.norms.items():
            backward[formats] += count if name == 'gn_det::group_norm_backward' else 0
        assert backward[frozenset({'nhwc'})] == (31 if norm else 20)
        assert backward.total() == (36 if norm else 20)
        counts.append(watch.conversions.total())
    assert counts[0] <= counts[1]


def roi_heads(config: dict) -> tuple[dict, dict]:
    return config.roi_head.bbox_head, config.roi_head.mask_head


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=['bf16', 'fp16'])
def test_no_cast_to_float32_under_autocast(dtype):
    """Each norm reads and writes 16 bits, forward and backward; nothing casts up."""
    model = body(dict(type='GN', num_groups=4))
    gn_det.fuse(model)
    watch = watched(model, images(), torch.autocast('cpu', dtype))
    assert sum(watch.norms.values()) == 2 * (53 + 8)
    assert {dtypes for _, dtypes, _ in watch.norms} == {frozenset({dtype})}
    assert not watch.casts_up


def test_the_pyramid_adds_in_16_bits_under_cudas_autocast(monkeypatch):
    """CUDA's autocast upsamples in float32, the CPU's does not: asked of its own lists,
    which fake tensors of a device that is not there go through."""
    amp = 'torch.cuda.amp.common.amp_definitely_not_available'
    monkeypatch.setattr(amp, lambda: False)
    monkeypatch.setattr('torch.cuda.is_bf16_supported', lambda *_: True)
    with FakeTensorMode(), torch.device('cuda'), Watch() as watch:
        neck = FPN([8, 16, 16], 16, 3, norm_cfg=dict(type='GN', num_groups=4))
        report = gn_det.fuse(neck)
        maps = [torch.empty(IMAGES, c, s, s) for c, s in ((8, 16), (16, 8), (16, 4))]
        with torch.autocast('cuda', torch.bfloat16):
            # The rule that this is about.
            upsampled = nn.functional.interpolate(maps[2].bfloat16(), 8)
            assert upsampled.dtype == torch.float32
            watch.casts_up.clear()
            neck(maps)
    assert len(report.add) == 2
    assert {dtypes for _, dtypes, _ in watch.norms} == {frozenset({torch.bfloat16})}
    assert not watch.casts_up
    assert not watch.additions


def test_stock_norms_under_cudas_policy_are_counted():
    """So that the test above can fail: torch casts every norm's map up and back."""
    model = body(dict(type='GN', num_groups=4))
    with cudas_policy():
        watch = watched(model, images(), torch.autocast('cpu', torch.bfloat16))
    assert sum(watch.casts_up.values()) >= 53
    assert {torch.float32} in {dtypes for _, dtypes, _ in watch.norms}


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=['bf16', 'fp16'])
def test_a_model_in_16_bits_stays_there(dtype):
    model = body(dict(type='GN', num_groups=4)).to(dtype)
    gn_det.fuse(model)
    watch = watched(model, images(dtype))
    assert {dtypes for _, dtypes, _ in watch.norms} == {frozenset({dtype})}
    assert not watch.casts_up


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=['bf16', 'fp16'])
def test_norms_of_a_whole_model_under_autocast(dtype):
    """Every norm's output has its input's 16 bits, in the heads as well."""
    seen = Counter()

    def note(norm, inputs, output):
        seen[inputs[0].dtype, output.dtype] += 1

    theirs = stock(model_config(R18))
    gn_det.fuse(theirs)
    for module in theirs.modules():
        if isinstance(module, nn.GroupNorm):
            module.register_forward_hook(note)
    with torch.autocast('cpu', dtype):
        losses(theirs, batch(*SIZE))
    assert seen == {(dtype, dtype): 36}

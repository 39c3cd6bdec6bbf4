"""Deformable convolution of the substitute, through mmcv's functions and layers."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from gn_det.compat import mmcv_ext
from gn_det.compat.operators import OPERATORS
from tests.compat.devices import DEVICES

mmcv_ext.install()

from mmcv import ops  # noqa: E402  (needs `install`)

pytestmark = pytest.mark.skipif(
    not mmcv_ext.is_substitute(), reason='this mmcv has its compiled operators'
)
# stride, padding, dilation, groups, deformable groups
GEOMETRIES = [
    (1, 0, 1, 1, 1),
    (1, 1, 1, 1, 1),
    ((2, 1), (1, 2), (1, 2), 1, 1),
    (2, 1, 1, 2, 1),
    (1, 2, 2, 1, 4),
    (1, 1, 1, 4, 2),
]


def random_operands(
    geometry: tuple, seed: int = 0, kernel: tuple[int, int] = (3, 2)
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Input [2, 4, 8, 9], weight, and an output of the shape of the convolution."""
    stride, padding, dilation, groups, _ = geometry
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 4, 8, 9, generator=generator, dtype=torch.float64)
    weight = torch.randn(
        8, 4 // groups, *kernel, generator=generator, dtype=torch.float64
    )
    return (
        features,
        weight,
        F.conv2d(features, weight, None, stride, padding, dilation, groups),
    )


def per_point(output: torch.Tensor, deform_groups: int, factors: int) -> torch.Tensor:
    """Zeros in the shape of an offset (factors 2) or a mask (1) of a 3 × 2 kernel."""
    return output.new_zeros(len(output), deform_groups * factors * 6, *output.shape[2:])


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_zero_offset_is_a_convolution(geometry, device):
    features, weight, expected = random_operands(geometry)
    offset = per_point(expected, geometry[-1], 2).to(device)
    features, weight = features.to(device), weight.to(device)
    output = ops.deform_conv2d(features, offset, weight, *geometry)
    torch.testing.assert_close(output.cpu(), expected)

    mask = torch.ones_like(per_point(expected, geometry[-1], 1), device=device)
    bias = torch.randn(8, dtype=torch.float64)
    output = ops.modulated_deform_conv2d(
        features, offset, mask, weight, bias.to(device), *geometry
    )
    torch.testing.assert_close(output.cpu(), expected + bias[:, None, None])
    output = ops.modulated_deform_conv2d(
        features, offset, mask, weight, None, *geometry
    )
    torch.testing.assert_close(output.cpu(), expected)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('modulated', [False, True])
def test_whole_offsets_shift_each_deformable_group(modulated, device):
    """Channels 0–1 read the map moved by (1, −2), channels 2–3 by (0, 3)."""
    geometry = (1, 1, 1, 1, 2)
    features, weight, output = random_operands(geometry)
    offset = per_point(output, 2, 2).view(2, 2, 6, 2, *output.shape[2:])
    shifts = [(1, -2), (0, 3)]
    moved = []
    for group, (dy, dx) in enumerate(shifts):
        offset[:, group, :, 0], offset[:, group, :, 1] = dy, dx
        # A margin of 3 holds every shift: moving it is choosing its widths.
        channels = features[:, 2 * group : 2 * group + 2]
        moved.append(F.pad(channels, (3 - dx, 3 + dx, 3 - dy, 3 + dy)))
    convolved = F.conv2d(torch.cat(moved, 1), weight)
    # The padding of 1 is part of the margin, so the map starts 2 pixels into it.
    height, width = output.shape[2:]
    expected = convolved[:, :, 2 : 2 + height, 2 : 2 + width]
    assert not torch.allclose(expected, output)

    offset = offset.flatten(1, 3).to(device)
    features, weight = features.to(device), weight.to(device)
    if modulated:
        mask = torch.ones_like(per_point(output, 2, 1), device=device)
        result = ops.modulated_deform_conv2d(
            features, offset, mask, weight, None, *geometry
        )
    else:
        result = ops.deform_conv2d(features, offset, weight, *geometry)
    torch.testing.assert_close(result.cpu(), expected)


def test_mask_weighs_each_kernel_point():
    geometry = (1, 1, 1, 1, 2)
    features, weight, output = random_operands(geometry)
    factors = torch.rand(2, 3, 2, dtype=torch.float64)  # deformable group, kernel
    mask = per_point(output, 2, 1) + factors.view(12, 1, 1)
    weighed = weight.clone()
    weighed[:, :2] *= factors[0]
    weighed[:, 2:] *= factors[1]
    result = ops.modulated_deform_conv2d(
        features, per_point(output, 2, 2), mask, weight, None, *geometry
    )
    torch.testing.assert_close(result, F.conv2d(features, weighed, padding=1))


def gradcheck_operands(geometry: tuple) -> list[torch.Tensor]:
    """Input, offset, mask and weight, no point within 0.2 of a whole position.

    The interpolation has a kink there.
    """
    features, weight, output = random_operands(geometry, seed=1)
    offset = torch.rand_like(per_point(output, geometry[-1], 2)) * 0.6 + 0.2
    offset += torch.randint(-2, 2, offset.shape)
    mask = torch.rand_like(per_point(output, geometry[-1], 1))
    return [t.requires_grad_() for t in (features, offset, mask, weight)]


@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_deform_conv_gradcheck(geometry):
    features, offset, _, weight = gradcheck_operands(geometry)
    assert gradcheck(
        lambda *tensors: ops.deform_conv2d(*tensors, *geometry),
        (features, offset, weight),
        fast_mode=True,
    )


@pytest.mark.parametrize('with_bias', [True, False])
@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_modulated_deform_conv_gradcheck(geometry, with_bias):
    bias = torch.randn(8, dtype=torch.float64, requires_grad=True)
    inputs = [*gradcheck_operands(geometry), bias if with_bias else None]
    assert gradcheck(
        lambda *tensors: ops.modulated_deform_conv2d(*tensors, *geometry),
        inputs,
        fast_mode=True,
    )


@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_offset_gradient_at_whole_positions(geometry):
    """It is the slope to the right, but 0 for points at −1 (or less) in y or x.

    Every point of a convolution that starts with zero offsets lies on such a kink.
    """
    stride, padding, dilation, _, deform_groups = geometry
    features, weight, output = random_operands(geometry)
    upstream = torch.linspace(-1, 1, output.numel()).view_as(output)
    gradients = []
    for nudge in (0, 1e-9):
        offset = (per_point(output, deform_groups, 2) + nudge).requires_grad_()
        result = ops.deform_conv2d(features, offset, weight, *geometry)
        result.backward(upstream.to(result.dtype))
        gradients.append(offset.grad.view(2, deform_groups, 6, 2, -1))
    at_kink, to_the_right = gradients

    pad_h, pad_w = padding if isinstance(padding, tuple) else (padding, padding)
    y = torch.arange(-pad_h, 8 + pad_h, dtype=torch.float64)
    x = torch.arange(-pad_w, 9 + pad_w, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(y, x, indexing='ij'))
    positions = F.unfold(grid[None], (3, 2), dilation, stride=stride).view(2, 6, -1)
    before = (positions <= -1).any(dim=0)[:, None]  # kernel point, 1, output pixel
    expected = to_the_right.masked_fill(before, 0)
    torch.testing.assert_close(at_kink, expected)
    assert torch.equal(expected, to_the_right) == (padding == 0)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('im2col_step', [1, 2, 5, 32])
def test_deform_conv_published(im2col_step, device):
    """mmcv's own test (tests/test_ops/test_deform_conv.py), offsets learned."""
    layer = ops.DeformConv2dPack(1, 1, 2, im2col_step=im2col_step).double()
    layer.conv_offset.weight.data = torch.tensor(
        [
            [0.1, 0.4, 0.6, 0.1],
            [0.3, 0.2, 0.1, 0.3],
            [0.5, 0.5, 0.2, 0.8],
            [0.8, 0.3, 0.9, 0.1],
            [0.3, 0.1, 0.2, 0.5],
            [0.3, 0.7, 0.5, 0.3],
            [0.6, 0.2, 0.5, 0.3],
            [0.4, 0.1, 0.8, 0.4],
        ],
        dtype=torch.float64,
    ).view(8, 1, 2, 2)
    layer.conv_offset.bias.data = torch.tensor(
        [0.7, 0.1, 0.8, 0.5, 0.6, 0.5, 0.4, 0.7], dtype=torch.float64
    )
    layer.weight.data = torch.tensor([[[[0.4, 0.2], [0.1, 0.9]]]], dtype=torch.float64)
    layer.to(device)
    batch = 10
    features = torch.tensor([[1.0, 2, 3], [0, 1, 2], [3, 5, 2]], dtype=torch.float64)
    features = features.expand(batch, 1, 3, 3).to(device).requires_grad_()
    output = layer(features)
    output.backward(torch.ones_like(output))

    def check(actual: torch.Tensor, expected: list) -> None:
        expected = torch.tensor(expected, dtype=torch.float64).expand_as(actual)
        torch.testing.assert_close(actual.detach().cpu(), expected, rtol=0, atol=1e-3)

    check(output, [[1.65, 0], [0, 0]])
    check(
        features.grad,
        [[-0.666, 0.204, 0], [0.03, -0.416, 0.012], [0, 0.252, 0.129]],
    )
    check(layer.weight.grad / batch, [[3.62, 0], [0.4, 0.18]])
    check(
        layer.conv_offset.bias.grad / batch,
        [1.44, -0.72, 0, 0, -0.1, -0.08, -0.54, -0.54],
    )


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_modulated_deform_conv_published(dtype, device):
    """mmcv's own test (tests/test_ops/test_modulated_deform_conv.py)."""
    layer = ops.ModulatedDeformConv2dPack(1, 1, 2, padding=1, bias=False)
    layer.weight.data.fill_(1)
    layer.to(device, dtype)
    features = torch.tensor([1, 2, 3], dtype=dtype).expand(1, 1, 3, 3).to(device)
    features = features.clone().requires_grad_()
    output = layer(features)
    output.sum().backward()

    def check(actual: torch.Tensor, expected: list) -> None:
        expected = torch.tensor(expected, dtype=dtype).expand_as(actual)
        torch.testing.assert_close(actual.detach().cpu(), expected)

    check(
        output,
        [[0.5, 1.5, 2.5, 1.5], [1, 3, 5, 3], [1, 3, 5, 3], [0.5, 1.5, 2.5, 1.5]],
    )
    check(features.grad, [[2, 2, 2]] * 3)
    check(layer.weight.grad, [[9, 9], [9, 9]])
    check(
        layer.conv_offset.bias.grad,
        [-3, -1.5, -3, -1.5, -3, -1.5, -3, -1.5, 4.5, 4.5, 4.5, 4.5],
    )


def backward_operands() -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """What mmcv hands the backward operators for a 3 × 2 kernel and padding 1."""
    features, offset, mask, weight = gradcheck_operands((1, 1, 1, 1, 2))
    bias = torch.randn(8, dtype=torch.float64, requires_grad=True)
    output = ops.modulated_deform_conv2d(
        features, offset, mask, weight, bias, 1, 1, 1, 1, 2
    )
    tensors = {
        'features': features,
        'offset': offset,
        'mask': mask,
        'weight': weight,
        'bias': bias,
        'upstream': torch.randn_like(output),
    }
    return tensors, {'group': 1, 'deformable_group': 2}


def test_v1_backward_adds_or_overwrites_as_mmcv_does():
    tensors, groups = backward_operands()
    x, o, w, dy = (tensors[k] for k in ('features', 'offset', 'weight', 'upstream'))
    ops.deform_conv2d(x, o, w, 1, 1, 1, 1, 2).backward(dy)
    none = x.new_empty(0)
    geometry = {'kW': 2, 'kH': 3, 'dW': 1, 'dH': 1, 'padW': 1, 'padH': 1}
    geometry |= {'dilationW': 1, 'dilationH': 1, 'im2col_step': 2, **groups}
    dx, do, dw = torch.ones_like(x), torch.ones_like(o), torch.ones_like(w)
    OPERATORS['deform_conv_backward_input'](x, o, dy, dx, do, w, none, **geometry)
    OPERATORS['deform_conv_backward_parameters'](
        x, o, dy, dw, none, none, scale=0.5, **geometry
    )
    torch.testing.assert_close(dx, x.grad + 1)
    torch.testing.assert_close(do, o.grad)
    torch.testing.assert_close(dw, w.grad * 0.5 + 1)


@pytest.mark.parametrize('with_bias', [True, False])
def test_v2_backward_adds_or_overwrites_as_mmcv_does(with_bias):
    tensors, groups = backward_operands()
    x, o, m, w, b, dy = tensors.values()
    ops.modulated_deform_conv2d(x, o, m, w, b, 1, 1, 1, 1, 2).backward(dy)
    none = x.new_empty(0)
    geometry = {'kernel_h': 3, 'kernel_w': 2, 'stride_h': 1, 'stride_w': 1}
    geometry |= {'pad_h': 1, 'pad_w': 1, 'dilation_h': 1, 'dilation_w': 1, **groups}
    dx, dw, db, do, dm = (torch.ones_like(t) for t in (x, w, b, o, m))
    OPERATORS['modulated_deform_conv_backward'](
        *(x, w, b, none, o, m, none, dx, dw, db, do, dm, dy),
        **geometry,
        with_bias=with_bias,
    )
    torch.testing.assert_close(dx, x.grad + 1)
    torch.testing.assert_close(dw, w.grad + 1)
    torch.testing.assert_close(do, o.grad)
    torch.testing.assert_close(dm, m.grad)
    torch.testing.assert_close(db, b.grad + 1 if with_bias else torch.ones_like(b))


def test_channels_last_changes_nothing():
    geometry = (1, 1, 1, 1, 2)
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        leaves = [
            t.detach().clone(memory_format=memory_format).requires_grad_()
            for t in gradcheck_operands(geometry)
        ]
        assert leaves[1].is_contiguous(memory_format=memory_format)
        output = ops.modulated_deform_conv2d(*leaves, None, *geometry)
        output.backward(torch.arange(output.numel()).view_as(output) % 7 - 3.0)
        results.append([output.detach(), *(leaf.grad for leaf in leaves)])
    for contiguous, channels_last in zip(*results, strict=True):
        torch.testing.assert_close(contiguous, channels_last)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_types_are_float32_rounded_once(dtype):
    tensors = [t.detach().to(dtype) for t in gradcheck_operands((1, 1, 1, 1, 2))]
    results = []
    for working in (dtype, torch.float32):
        leaves = [t.to(working, copy=True).requires_grad_() for t in tensors]
        output = ops.modulated_deform_conv2d(*leaves, None, 1, 1, 1, 1, 2)
        assert output.dtype == working
        # Halves of small whole numbers, exact in every dtype.
        upstream = torch.arange(output.numel()).view_as(output) % 7 / 2
        output.backward(upstream.to(working))
        results.append([output.detach(), *(leaf.grad for leaf in leaves)])
    for half, single in zip(*results, strict=True):
        assert torch.equal(half, single.to(dtype))


def test_v2_reads_larger_maps_from_the_start_of_their_memory():
    """As DyHead hands them to the next level's map, of half the size."""
    geometry = (2, 1, 1, 1, 2)
    features, offset, mask, weight = gradcheck_operands(geometry)
    shape = offset.shape[2:]

    def enlarged(maps: torch.Tensor) -> torch.Tensor:
        """The same numbers in memory, image by image, and more after them."""
        whole = torch.rand(*maps.shape[:2], shape[0] + 2, shape[1] + 1).double() + 5
        whole.flatten(1)[:, : maps[0].numel()] = maps.detach().flatten(1)
        return whole.requires_grad_()

    larger = enlarged(offset), enlarged(mask)
    outputs = [
        ops.modulated_deform_conv2d(features, *maps, weight, None, *geometry)
        for maps in ((offset, mask), larger)
    ]
    torch.testing.assert_close(*outputs, rtol=0, atol=0)
    upstream = torch.arange(outputs[0].numel()).view_as(outputs[0]) % 7 - 3.0
    for output in outputs:
        output.backward(upstream.to(output.dtype))
    for exact, whole in zip((offset, mask), larger, strict=True):
        read, rest = whole.grad.flatten(1).split(
            [exact[0].numel(), whole[0].numel() - exact[0].numel()], dim=1
        )
        torch.testing.assert_close(read, exact.grad.flatten(1), rtol=0, atol=0)
        assert not rest.any()
    assert gradcheck(
        lambda *maps: ops.modulated_deform_conv2d(
            features.detach(), *maps, weight.detach(), None, *geometry
        ),
        larger,
        fast_mode=True,
    )


def test_v2_refuses_smaller_maps():
    features, offset, mask, weight = gradcheck_operands((1, 1, 1, 1, 2))
    with pytest.raises(ValueError, match=r"at least the output's size \[8, 10\]"):
        ops.modulated_deform_conv2d(
            features, offset[..., 1:], mask, weight, None, 1, 1, 1, 1, 2
        )


def test_dyhead():
    """mmdet's own neck: each level is convolved with the offsets of its neighbour."""
    from mmdet.models.necks import DyHead

    neck = DyHead(16, 16, num_blocks=1)
    levels = [torch.rand(1, 16, size, size, requires_grad=True) for size in (32, 16, 8)]
    outputs = neck(levels)
    sum(output.square().mean() for output in outputs).backward()
    for level, output in zip(levels, outputs, strict=True):
        assert output.shape == level.shape
        assert level.grad.abs().sum() > 0

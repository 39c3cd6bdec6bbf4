"""RoIAlign and deformable RoI pooling, through mmcv's layers."""

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from gn_det.compat import mmcv_ext
from gn_det.compat.operators import OPERATORS
from tests.compat.devices import DEVICES

mmcv_ext.install()

from mmcv import ops  # noqa: E402  (needs `install`)

pytestmark = pytest.mark.skipif(
    not mmcv_ext.is_substitute(), reason='this mmcv has its compiled operators'
)

# Maps, RoIs and results for 2 × 2 bins of mmcv's own tests
# (tests/test_ops/test_roi_align.py): output and, for an upstream
# gradient of ones, the gradient of the map.
SMALL_MAP = [[[[1, 2], [3, 4]]]]
SMALL_ROI = [[0, 0, 0, 1, 1]]
LARGE_MAP = [[[[1, 2, 5, 6], [3, 4, 7, 8], [9, 10, 13, 14], [11, 12, 15, 16]]]]
LARGE_ROI = [[0, 0, 0, 3, 3]]
PUBLISHED_ROI_ALIGN = [
    (
        SMALL_MAP,
        SMALL_ROI,
        [[[[1.0, 1.25], [1.5, 1.75]]]],
        [[[[3.0625, 0.4375], [0.4375, 0.0625]]]],
    ),
    (
        LARGE_MAP,
        LARGE_ROI,
        [[[[1.9375, 4.75], [7.5625, 10.375]]]],
        [
            [
                [
                    [0.47265625, 0.42968750, 0.42968750, 0.04296875],
                    [0.42968750, 0.39062500, 0.39062500, 0.03906250],
                    [0.42968750, 0.39062500, 0.39062500, 0.03906250],
                    [0.04296875, 0.03906250, 0.03906250, 0.00390625],
                ]
            ]
        ],
    ),
]


def ramp() -> torch.Tensor:
    return torch.arange(25.0).view(1, 1, 5, 5)


def random_case(
    seed: int, count: int = 12, scale: float = 0.5
) -> tuple[torch.Tensor, torch.Tensor]:
    """A map [2, 3, 9, 11] and RoIs that reach beyond it on all sides."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 3, 9, 11, generator=generator, dtype=torch.float64)
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 18 - 4
    size = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 16
    image = torch.randint(2, (count, 1), generator=generator)
    return features, torch.cat([image, corner / scale, (corner + size) / scale], 1)


def interpolate(plane: np.ndarray, y: float, x: float) -> float:
    """Bilinear, with the border repeated for one pixel outside and 0 beyond."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    top = plane[y0, x0] * (1 - x + x0) + plane[y0, x1] * (x - x0)
    bottom = plane[y1, x0] * (1 - x + x0) + plane[y1, x1] * (x - x0)
    return top * (1 - y + y0) + bottom * (y - y0)


def looped_roi_align(
    features: np.ndarray,
    rois: np.ndarray,
    size: tuple[int, int],
    scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> np.ndarray:
    output = np.zeros((len(rois), features.shape[1], *size))
    for k, c, i, j in np.ndindex(*output.shape):
        x1, y1, x2, y2 = rois[k, 1:] * scale - 0.5 * aligned
        height, width = y2 - y1, x2 - x1
        if not aligned:
            height, width = max(height, 1), max(width, 1)
        bin_h, bin_w = height / size[0], width / size[1]
        rows, columns = (
            sampling_ratio or math.ceil(bin_h),
            sampling_ratio or math.ceil(bin_w),
        )
        values = [
            interpolate(
                features[int(rois[k, 0]), c],
                y1 + (i + (row + 0.5) / rows) * bin_h,
                x1 + (j + (column + 0.5) / columns) * bin_w,
            )
            for row in range(rows)
            for column in range(columns)
        ]
        output[k, c, i, j] = np.mean(values) if values else 0
    return output


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('sampling_ratio', [0, 2])
@pytest.mark.parametrize(('aligned', 'first'), [(False, 7.5), (True, 4.5)])
def test_roi_align_of_a_ramp(aligned, first, sampling_ratio, device):
    """Bin (i, j) of a linear map is its value in the middle of the bin.

    The map is 5y + x; the middles are half a pixel apart, starting at 1.25 (legacy) or
    0.75 (aligned). The values are those of detectron2's tests/layers/test_roi_align.py.
    """
    steps = torch.arange(4) / 2
    expected = first + 5 * steps[:, None] + steps
    roi = torch.tensor([[0, 1, 1, 3, 3.0]], device=device)
    layer = ops.RoIAlign(4, 1.0, sampling_ratio, aligned=aligned)
    torch.testing.assert_close(layer(ramp().to(device), roi).cpu()[0, 0], expected)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('case', PUBLISHED_ROI_ALIGN)
def test_roi_align_published(case, dtype, device):
    features, rois, output, gradient = (torch.tensor(c, dtype=dtype) for c in case)
    features = features.to(device).requires_grad_()
    result = ops.roi_align(features, rois.to(device), 2, 1.0, 2, 'avg', True)
    result.backward(torch.ones_like(result))
    torch.testing.assert_close(result.detach().cpu(), output)
    torch.testing.assert_close(features.grad.cpu(), gradient)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 1, 3])
def test_roi_align_matches_a_plain_loop(sampling_ratio, aligned, device):
    features, rois = random_case(seed=sampling_ratio)
    rois[0, 3] = rois[0, 1]  # no width: 0 where aligned, one pixel in the legacy form
    parameters = ((3, 2), 0.5, sampling_ratio, aligned)
    expected = looped_roi_align(features.numpy(), rois.numpy(), *parameters)
    layer = ops.RoIAlign(*parameters[:3], aligned=aligned)
    output = layer(features.to(device), rois.to(device))
    torch.testing.assert_close(output.cpu(), torch.from_numpy(expected))


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_roi_align_gradcheck(sampling_ratio, aligned):
    features, rois = random_case(seed=9, count=4)
    layer = ops.RoIAlign((2, 3), 0.5, sampling_ratio, aligned=aligned)
    assert gradcheck(lambda x: layer(x, rois), features[:, :2].requires_grad_())


@pytest.mark.parametrize('layer', [ops.RoIAlign(2), ops.DeformRoIPool(2)])
def test_no_rois(layer):
    features = torch.rand(2, 3, 5, 5, requires_grad=True)
    output = layer(features, torch.zeros(0, 5))
    assert output.shape == (0, 3, 2, 2)
    output.sum().backward()
    assert torch.equal(features.grad, torch.zeros(2, 3, 5, 5))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('layer', [ops.RoIAlign(3, 0.5), ops.DeformRoIPool(3, 0.5)])
def test_half_types_are_float32_rounded_once(layer, dtype):
    features, rois = (t.to(dtype) for t in random_case(seed=1, count=60))
    upstream = torch.randn(60, 3, 3, 3, generator=torch.manual_seed(0)).to(dtype)
    results = []
    for working in (dtype, torch.float32):
        leaf = features.to(working, copy=True).requires_grad_()
        output = layer(leaf, rois.to(working))
        output.backward(upstream.to(working))
        assert output.dtype == leaf.grad.dtype == working
        results.append((output.detach(), leaf.grad))
    for half, single in zip(*results, strict=True):
        assert torch.equal(half, single.to(dtype))


@pytest.mark.parametrize('layer', [ops.RoIAlign(3, 0.5), ops.DeformRoIPool(3, 0.5)])
def test_channels_last_changes_nothing(layer):
    features, rois = random_case(seed=6)
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        leaf = features.clone(memory_format=memory_format).requires_grad_()
        output = layer(leaf, rois)
        upstream = torch.arange(output.numel()).view_as(output) % 7 - 3.0
        output.backward(upstream.contiguous(memory_format=memory_format))
        results.append((output.detach(), leaf.grad))
    for contiguous, channels_last in zip(*results, strict=True):
        torch.testing.assert_close(contiguous, channels_last)


def test_roi_align_backward_adds_and_takes_any_strides():
    features, rois = random_case(seed=2)
    none = features.new_zeros(0)
    upstream = torch.randn(12, 3, 4, 2, dtype=torch.float64)
    strided = upstream.permute(3, 1, 2, 0).contiguous().permute(3, 1, 2, 0)
    assert not strided.is_contiguous()
    gradients = []
    for grad_output in (upstream, strided):
        grad_input = torch.ones_like(features)
        OPERATORS['roi_align_backward'](
            grad_output, rois, none, none, grad_input, 4, 2, 0.5, 0, 1, True
        )
        gradients.append(grad_input)
    leaf = features.clone().requires_grad_()
    ops.roi_align(leaf, rois, (4, 2), 0.5).backward(upstream)
    assert leaf.grad.abs().sum() > 1
    for gradient in gradients:
        torch.testing.assert_close(gradient, leaf.grad + 1)


def test_roi_align_refuses_max_pooling():
    features, rois = random_case(seed=3)
    with pytest.raises(NotImplementedError, match="pool_mode='max'"):
        ops.roi_align(features, rois, 2, 0.5, 0, 'max', True)


@pytest.mark.parametrize(
    'roi', [[0, 3, 1, 2, 4.0], [0, 1, 4, 3, 2.0], [0, 1, 1, 3, math.nan]]
)
def test_roi_align_refuses_negative_sizes(roi):
    rois = torch.tensor([[0, 1, 1, 3, 3.0], roi])
    with pytest.raises(ValueError, match='of size ≥ 0'):
        ops.roi_align(ramp(), rois, 2, 1.0, 0, 'avg', True)


@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_deform_roi_pool_without_offsets_is_roi_align(sampling_ratio):
    features, rois = random_case(seed=4, count=20)
    rois[0, 3] = rois[0, 1]  # no width
    parameters = ((3, 2), 0.5, sampling_ratio)
    results = []
    for layer in (
        ops.DeformRoIPool(*parameters),
        ops.RoIAlign(*parameters, aligned=True),
    ):
        leaf = features.clone().requires_grad_()
        output = layer(leaf, rois)
        output.backward(torch.arange(output.numel()).view_as(output) % 7 - 3.0)
        results.append((output.detach(), leaf.grad))
    for pooled, aligned in zip(*results, strict=True):
        torch.testing.assert_close(pooled, aligned)


def test_deform_roi_pool_moves_each_bin():
    """By γ · width and γ · height of the RoI, on a map that is 5y + x."""
    roi = torch.tensor([[0, 1, 1, 3, 3.0]])
    offset = torch.zeros(1, 2, 2, 2)
    offset[0, :, 0, 1] = torch.tensor([2.0, -1.0])  # x, y of the upper right bin
    moved = ops.deform_roi_pool(ramp(), roi, offset, 2, 1.0, 1, 0.25)
    still = ops.deform_roi_pool(ramp(), roi, None, 2, 1.0, 1, 0.25)
    expected = torch.tensor([[0, 0.25 * 2 * 2 - 5 * 0.25 * 2], [0, 0]])
    torch.testing.assert_close((moved - still)[0, 0], expected)


@pytest.mark.parametrize(
    'layer', [ops.DeformRoIPoolPack, ops.ModulatedDeformRoIPoolPack]
)
def test_deform_roi_pool_pack_gradcheck(layer):
    features, rois = random_case(seed=5, count=4)
    layer = layer((2, 3), 3, 4, 0.5).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    assert gradcheck(
        lambda x, *_: layer(x, rois), (features.requires_grad_(), *layer.parameters())
    )

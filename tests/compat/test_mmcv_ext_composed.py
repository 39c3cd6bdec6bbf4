"""Deformable attention, CARAFE, masked convolution, MMSyncBN, through mmcv's layers."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.autograd import gradcheck

from gn_det.compat import mmcv_ext
from tests.compat.devices import DEVICES

mmcv_ext.install()

from mmcv import ops  # noqa: E402  (needs `install`)
from mmcv.ops.multi_scale_deform_attn import (  # noqa: E402
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)

pytestmark = pytest.mark.skipif(
    not mmcv_ext.is_substitute(), reason='this mmcv has its compiled operators'
)


def attention_operands() -> list[torch.Tensor]:
    """Value, shapes, locations (also beyond the maps) and weights of two levels."""
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    shapes = torch.tensor([[6, 4], [3, 2]])
    locations = rand(2, 5, 2, 2, 3, 2) * 1.6 - 0.3
    return [rand(2, 30, 2, 3), shapes, locations, rand(2, 5, 2, 2, 3)]


def attend(
    value: torch.Tensor,
    shapes: torch.Tensor,
    locations: torch.Tensor,
    weights: torch.Tensor,
    im2col_step: int = 64,
) -> torch.Tensor:
    starts = torch.tensor([0, 24], device=value.device)
    return MultiScaleDeformableAttnFunction.apply(
        value, shapes, starts, locations, weights, im2col_step
    )


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('im2col_step', [1, 64])
def test_attention_is_mmcvs_own_form(im2col_step, device):
    """Values and gradients of `multi_scale_deformable_attn_pytorch`."""
    results = []
    for form in (
        lambda *t: attend(*t, im2col_step),
        multi_scale_deformable_attn_pytorch,
    ):
        value, shapes, *rest = (t.to(device) for t in attention_operands())
        leaves = [t.requires_grad_() for t in (value, *rest)]
        output = form(value, shapes, *rest)
        output.backward(
            torch.arange(output.numel(), device=device).view_as(output) % 7 - 3.0
        )
        results.append([output.detach(), *(leaf.grad for leaf in leaves)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_attention_gradcheck():
    value, shapes, *rest = attention_operands()
    leaves = [t.requires_grad_() for t in (value, *rest)]
    assert gradcheck(lambda v, *r: attend(v, shapes, *r), leaves, fast_mode=True)


def test_attention_of_half_types_is_float32_rounded_once():
    value, shapes, *rest = attention_operands()
    half = [t.half() for t in (value, *rest)]
    single = attend(half[0].float(), shapes, *(t.float() for t in half[1:]))
    assert torch.equal(attend(half[0], shapes, *half[1:]), single.half())


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('scale', [1, 2])
@pytest.mark.parametrize(('kernel', 'groups'), [(1, 1), (3, 2), (5, 1)])
def test_carafe_is_a_convolution_with_kernels_of_its_own(kernel, groups, scale, device):
    """Each output pixel by itself: the window around its pixel times its mask."""
    generator = torch.Generator().manual_seed(kernel)
    features = torch.randn(2, 4, 3, 5, generator=generator).to(device)
    masks = torch.rand(
        2, groups * kernel**2, 3 * scale, 5 * scale, generator=generator
    ).to(device)
    expected = torch.empty(2, 4, 3 * scale, 5 * scale, device=device)
    padded = F.pad(features, [kernel // 2] * 4)
    for y in range(3 * scale):
        for x in range(5 * scale):
            top, left = y // scale, x // scale
            window = padded[:, :, top : top + kernel, left : left + kernel]
            weights = masks[:, :, y, x].view(2, groups, 1, kernel, kernel)
            products = window.unflatten(1, (groups, -1)) * weights
            expected[:, :, y, x] = products.sum((3, 4)).flatten(1)
    for layer in (ops.CARAFE, ops.CARAFENaive):
        torch.testing.assert_close(
            layer(kernel, groups, scale)(features, masks), expected
        )


def test_carafe_gradcheck():
    features = torch.randn(2, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    masks = torch.rand(2, 18, 6, 8, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda f, m: ops.carafe(f, m, 3, 2, 2), (features, masks))


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('share', [0.4, 0.0])
def test_masked_convolution_convolves_the_mask(share, device):
    layer = ops.MaskedConv2d(3, 5, (3, 1), padding=(1, 0)).to(device)
    features = torch.randn(1, 3, 6, 7, device=device)
    mask = (torch.rand(1, 6, 7, device=device) < share).float()
    torch.testing.assert_close(layer(features, mask), layer(features) * mask)


@pytest.fixture
def one_process(tmp_path):
    store = dist.FileStore(str(tmp_path / 'store'), 1)
    dist.init_process_group('gloo', store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize('stats_mode', ['default', 'N'])
@pytest.mark.parametrize('shape', [(2, 3, 4, 5), (1, 3, 1, 1)])
def test_sync_bn_of_one_process_is_batch_norm(shape, stats_mode, one_process):
    layer = ops.SyncBatchNorm(3, stats_mode=stats_mode)
    stock = nn.BatchNorm2d(3)
    stock.load_state_dict(layer.state_dict())
    if shape[0] == 1:
        # One number a channel, which torch refuses: the variance is 0.
        output = layer(torch.rand(shape))
        torch.testing.assert_close(output, torch.zeros(shape))
        assert layer.running_var.tolist() == pytest.approx([0.9] * 3)
        return
    features = torch.randn(shape) * 3 + 2
    results = []
    for norm in (layer, stock):
        leaf = features.clone().requires_grad_()
        output = norm(leaf)
        output.backward(torch.arange(output.numel()).view_as(output) % 7 - 3.0)
        results.append(
            [
                output.detach(),
                leaf.grad,
                norm.weight.grad,
                norm.bias.grad,
                norm.running_mean,
                norm.running_var,
            ]
        )
    for ours, torchs in zip(*results, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-4, atol=1e-5)

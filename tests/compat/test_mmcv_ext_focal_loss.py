"""Focal loss of the substitute, through mmcv's functions."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from gn_det.compat import mmcv_ext
from tests.compat.devices import DEVICES

mmcv_ext.install()

from mmcv import ops  # noqa: E402  (needs `install`)

pytestmark = pytest.mark.skipif(
    not mmcv_ext.is_substitute(), reason='this mmcv has its compiled operators'
)

# Logits, labels, mean loss and its gradient for γ = 2, α = 0.25 of mmcv's own test
# (tests/test_ops/test_focal_loss.py), there to 1 %.
LOGITS = [
    ([[1.0, 0], [0, 1.0]], [0, 1]),
    ([[1.0, 0, -1.0], [0, 1.0, 2.0]], [2, 1]),
]
PUBLISHED = {
    ops.softmax_focal_loss: [
        (0.00566451, [[-0.00657264, 0.00657264], [0.00657264, -0.00657264]]),
        (
            0.34956908,
            [
                [0.10165970, 0.03739851, -0.13905823],
                [0.01227554, -0.10298023, 0.09070466],
            ],
        ),
    ],
    ops.sigmoid_focal_loss: [
        (0.13562961, [[-0.00657264, 0.11185755], [0.11185755, -0.00657264]]),
        (
            1.10251057,
            [
                [0.28808805, 0.11185755, -0.09602935],
                [0.11185755, -0.00657264, 0.40376765],
            ],
        ),
    ],
}
LOSSES = list(PUBLISHED)
NAMES = ['softmax', 'sigmoid']


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dtype', [torch.float16, torch.float32])
@pytest.mark.parametrize('case', [0, 1])
@pytest.mark.parametrize('loss', LOSSES, ids=NAMES)
def test_published(loss, case, dtype, device):
    logits, labels = LOGITS[case]
    value, gradient = PUBLISHED[loss][case]
    logits = torch.tensor(logits, dtype=dtype, device=device, requires_grad=True)
    result = loss(logits, torch.tensor(labels, device=device), 2.0, 0.25, None, 'mean')
    result.backward()
    assert result.item() == pytest.approx(value, rel=1e-2)
    torch.testing.assert_close(
        logits.grad.float().cpu(), torch.tensor(gradient), rtol=1e-2, atol=1e-6
    )


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0])
@pytest.mark.parametrize('loss', LOSSES, ids=NAMES)
def test_gradcheck(loss, gamma, weighted):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, generator=generator, dtype=torch.float64) * 3
    weight = torch.rand(4, dtype=torch.float64) if weighted else None
    labels = torch.tensor([0, 3, -1, 1, 2, 1])
    # `none` of softmax has one loss per row, by which mmcv cannot multiply [N, C].
    for reduction in ('mean', 'sum'):
        assert gradcheck(
            lambda x, r=reduction: loss(x, labels, gamma, 0.25, weight, r),
            logits.requires_grad_(),
        )


@pytest.mark.parametrize('device', DEVICES)
def test_labels_that_are_no_class(device):
    """Sigmoid: background, which −1 and C are; softmax: a row with no loss."""
    logits = torch.tensor([[0.5, -1, 2]], device=device).expand(2, 3).contiguous()
    p = logits.sigmoid()
    background = -0.75 * p**2 * (1 - p).log()
    labels = torch.tensor([-1, 3], device=device)
    for weight in (None, torch.tensor([3.0, 5.0, 7.0], device=device)):
        result = ops.sigmoid_focal_loss(logits, labels, 2.0, 0.25, weight, 'none')
        torch.testing.assert_close(result, background)

    logits.requires_grad_()
    labels = torch.tensor([-1, -5], device=device)
    result = ops.softmax_focal_loss(logits, labels, 2.0, 0.25, None, 'sum')
    result.backward()
    assert result.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize('loss', LOSSES, ids=NAMES)
def test_class_weights_multiply_the_rows_of_their_label(loss):
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([2, 0, 2])
    weight = torch.tensor([3.0, 5.0, 7.0])
    plain, weighted = (
        loss(logits, labels, 2.0, 0.25, w, 'none').view(3, -1) for w in (None, weight)
    )
    torch.testing.assert_close(weighted, plain * torch.tensor([[7.0], [3.0], [7.0]]))


@pytest.mark.parametrize('loss', LOSSES, ids=NAMES)
def test_logarithms_stop_at_the_smallest_float(loss):
    """A hopeless logit costs −α · log 1.2e-38, not infinity."""
    logits = torch.tensor([[-200.0, 200.0]], requires_grad=True)
    result = loss(logits, torch.tensor([0]), 2.0, 0.25, None, 'sum')
    result.backward()
    floor = -math.log(torch.finfo(torch.float32).tiny)
    factor = 1.0 if loss is ops.sigmoid_focal_loss else 0.25
    assert result.item() == pytest.approx(factor * floor, rel=1e-5)
    assert logits.grad.isfinite().all()


def test_mmdet_computes_the_same_on_the_cpu():
    """Its CPU loss is written in torch; on CUDA it calls the operator."""
    from mmdet.models.losses.focal_loss import FocalLoss, sigmoid_focal_loss

    logits = torch.randn(7, 4, generator=torch.Generator().manual_seed(2)) * 3
    labels = torch.tensor([0, 3, 4, 1, 2, 4, 1])  # 4: background
    torch.testing.assert_close(
        FocalLoss()(logits, labels), sigmoid_focal_loss(logits, labels)
    )

"""Focal loss on sigmoid and softmax, by the formulas of mmcv's CUDA kernels.

mmcv's Python calls only these operators on CUDA; mmdet's CPU losses are its own. The
logarithms stop at log of the smallest normal float32 (1.2e-38), for float64 as well.
Half types are computed in float32. With class weights [C], an element's loss is
multiplied by the weight of its row's label; a label without class has the factor 1
(mmcv reads past the end of `weight`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from gn_det.compat.operators.precision import arithmetic_dtype

_SMALLEST = torch.finfo(torch.float32).tiny


@torch.no_grad()
def sigmoid_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Fill `output` [N, C] from the logits `input` [N, C] and the labels `target` [N].

    With p = sigmoid(x), the column of the label has −α (1 − p)^γ log p and every other
    −(1 − α) p^γ log(1 − p). A row whose label is no class (−1, C: background) has only
    others. An empty `weight` is none.
    """
    p = input.to(arithmetic_dtype(input)).sigmoid()
    positive = -alpha * (1 - p) ** gamma * _log(p)
    negative = (alpha - 1) * p**gamma * _log(1 - p)
    loss = torch.where(_is_label(input, target), positive, negative)
    output.copy_(_weighted(loss, target, weight))


@torch.no_grad()
def sigmoid_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Fill `grad_input` [N, C] with the slope of each element of the loss."""
    p = input.to(arithmetic_dtype(input)).sigmoid()
    positive = -alpha * (1 - p) ** gamma * (1 - p - gamma * p * _log(p))
    negative = (alpha - 1) * p**gamma * (gamma * (1 - p) * _log(1 - p) - p)
    slope = torch.where(_is_label(input, target), positive, negative)
    grad_input.copy_(_weighted(slope, target, weight))


@torch.no_grad()
def softmax_focal_loss_forward(
    softmax: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Fill `output` [N] with −α (1 − p)^γ log p, p being the label's probability.

    `softmax` [N, C] are the probabilities. A negative label has loss 0; one of C or
    more is an error, where mmcv reads the next row.
    """
    p = _probability(softmax, target)[:, None]
    loss = -alpha * (1 - p) ** gamma * _log(p)
    output.copy_(_weighted(loss, target, weight)[:, 0].masked_fill(target < 0, 0))


@torch.no_grad()
def softmax_focal_loss_backward(
    softmax: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Fill `grad_input` [N, C] with the slopes towards the logits.

    `buff` [N] receives the part that a row's elements share, as in mmcv.
    """
    p = _probability(softmax, target)[:, None]
    shared = alpha * (gamma * (1 - p) ** (gamma - 1) * p * _log(p) - (1 - p) ** gamma)
    shared = _weighted(shared, target, weight).masked_fill(target[:, None] < 0, 0)
    buff.copy_(shared[:, 0])
    grad_input.copy_(shared * (_is_label(softmax, target).to(p.dtype) - softmax))


def _log(p: Tensor) -> Tensor:
    return p.clamp(min=_SMALLEST).log()


def _is_label(scores: Tensor, target: Tensor) -> Tensor:
    """Which elements [N, C] stand in the column of their row's label."""
    return target[:, None] == torch.arange(scores.shape[1], device=target.device)


def _probability(softmax: Tensor, target: Tensor) -> Tensor:
    """The probability of each row's label; of class 0 where the label is negative."""
    chosen = softmax.gather(1, target.clamp(min=0)[:, None])[:, 0]
    return chosen.to(arithmetic_dtype(softmax))


def _weighted(values: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """`values` [N, …] times the weights of their rows' labels."""
    if not weight.numel():
        return values
    padded = torch.cat([weight, weight.new_ones(1)]).to(values.dtype)
    no_class = (target < 0) | (target >= len(weight))
    return values * padded[target.masked_fill(no_class, len(weight))][:, None]

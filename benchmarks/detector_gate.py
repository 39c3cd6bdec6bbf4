"""The detectors' gate: a fused model is timed only if it agrees with the stock one."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.detector_data import Batch, given_proposals

# Relative: of a loss, and of the norm of a parameter's gradient. In fp32 against stock
# in fp32. Rounding grows through a hundred layers forward and backward.
FP32_LOSS = 1e-4
FP32_GRADIENT = 5e-3
# In 16 bits both are held to stock in fp32: ours may err by this many times as much as
# stock does, and this much.
BF16_TIMES = 2.0
BF16_LOSS = 1e-2
BF16_GRADIENT = 5e-2

Bound = Callable[[str], float]


@dataclass(frozen=True)
class Step:
    """One training step's losses, and the gradient of every trained parameter."""

    losses: dict[str, float]
    gradients: dict[str, Tensor]

    def errors(self, reference: 'Step') -> tuple[dict[str, float], dict[str, float]]:
        """Relative errors of losses and gradients; infinite where one is missing."""
        most = max(float(g.norm()) for g in reference.gradients.values())
        losses = {
            name: abs(self.losses.get(name, np.inf) - value) / max(abs(value), 1e-6)
            for name, value in reference.losses.items()
        }
        gradients = {}
        for name, expected in reference.gradients.items():
            own = self.gradients.get(name)
            # A gradient that is zero but for rounding has no relative error.
            scale = max(float(expected.norm()), 1e-5 * most)
            error = np.inf if own is None else float((own - expected).norm()) / scale
            gradients[name] = np.inf if np.isnan(error) else error
        return losses, gradients


def training_step(model: nn.Module, batch: Batch, *, amp: bool) -> Step:
    """Losses and gradients, with equal proposals and equal random samples."""
    torch.manual_seed(0)
    np.random.seed(0)
    model.zero_grad()
    autocast = torch.autocast(batch.images.device.type, torch.bfloat16, enabled=amp)
    with given_proposals(model, batch):
        with autocast:
            losses = model(batch.images, batch.samples, mode='loss')
            total, named = model.parse_losses(losses)
        total.backward()
    return Step(
        {name: v.item() for name, v in named.items() if 'loss' in name},
        {
            name: parameter.grad.float().clone()
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        },
    )


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """fp32 convolutions and matrix products with TF32, as people train, or exact."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = allowed
    flags = {
        name: getattr(cudnn, name) for name in ('enabled', 'benchmark', 'deterministic')
    }
    try:
        with cudnn.flags(**flags, allow_tf32=allowed):
            yield
    finally:
        matmul.allow_tf32 = before


def randomise_norms(model: nn.Module, seed: int = 0) -> None:
    """Random scales and shifts for Group Norm: ones and zeros hide errors."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            with torch.no_grad():
                drawn = torch.rand(module.num_channels, generator=generator) + 0.5
                # The end of a residual branch starts at zero and stays small.
                small = 0.25 if not module.weight.any() else 1.0
                module.weight.copy_(small * drawn)
                drawn = torch.randn(module.num_channels, generator=generator)
                module.bias.copy_(0.1 * drawn)


class Gate:
    """The stock detector's training step, in fp32 and in the precision to be timed."""

    def __init__(self, stock: nn.Module, batch: Batch, *, amp: bool):
        self._batch = batch
        with tf32(False):
            self._exact = training_step(stock, batch, amp=False)
            self._stock = training_step(stock, batch, amp=True) if amp else None
        stock.zero_grad()

    def check(self, model: nn.Module) -> list[str]:
        """Everything wrong with a model of the same weights; nothing opens the gate."""
        with tf32(False):
            step = training_step(model, self._batch, amp=False)
            bounds = _constant(FP32_LOSS), _constant(FP32_GRADIENT)
            found = self._compare('fp32', step, *bounds)
            if self._stock is not None:
                step = training_step(model, self._batch, amp=True)
                losses, gradients = self._stock.errors(self._exact)
                found += self._compare(
                    'bf16',
                    step,
                    _beside(losses, BF16_LOSS),
                    _beside(gradients, BF16_GRADIENT),
                )
        model.zero_grad()
        return found

    def _compare(
        self, dtype: str, step: Step, loss_bound: Bound, gradient_bound: Bound
    ) -> list[str]:
        losses, gradients = step.errors(self._exact)
        found = _worst(f'{dtype} loss', losses, loss_bound)
        found += _worst(f'{dtype} gradient', gradients, gradient_bound)
        if set(step.gradients) != set(self._exact.gradients):
            found.append(f'{dtype}: other parameters have a gradient')
        return found


def _constant(bound: float) -> Bound:
    return lambda name: bound


def _beside(errors: dict[str, float], floor: float) -> Bound:
    return lambda name: BF16_TIMES * errors[name] + floor


def _worst(what: str, errors: dict[str, float], bound: Bound) -> list[str]:
    """In words the error that is furthest beyond its bound, and how many others are."""
    over = {name: error / bound(name) for name, error in errors.items()}
    over = {name: times for name, times in over.items() if not times <= 1}
    if not over:
        return []
    name = max(over, key=over.get)
    text = f'{what} {name} is off by {errors[name]:.1e}, allowed {bound(name):.1e}'
    return [text + (f', and {len(over) - 1} others' if len(over) > 1 else '')]

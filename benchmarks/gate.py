"""The correctness gate: a provider is timed only where it agrees with float64."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cases import DTYPES, Case, Inputs
from benchmarks.providers import gradients

# ‖error‖ / ‖reference‖, then max|error| / max|reference|. Eager torch rounds the norm,
# the sum and, in 16 bits, mean and rstd; the second bound is what shows a few wrong
# elements in a large map.
TOLERANCES = {
    'fp32': (1e-4, 1e-4),
    'fp16': (3e-3, 1e-2),
    'bf16': (1e-2, 3e-2),
}


class Reference:
    """One case in float64, by torch and its autograd."""

    def __init__(self, case: Case, inputs: Inputs):
        self.case = case
        self._inputs = inputs.map(lambda tensor: tensor.double())
        i = self._inputs
        self._z = F.group_norm(i.x, case.G, i.weight, i.bias)
        if i.residual is not None:
            self._z = self._z + i.residual

    @property
    def y(self) -> Tensor:
        z = self._z.detach()
        return z.relu() if self.case.relu else z

    def gradients(self, y: Tensor) -> tuple[Tensor, ...]:
        """Gradients with the ReLU's mask of the stored output y.

        Near zero the sign of y is a matter of rounding; each implementation is held to
        the mask of its own output, and that output to the reference.
        """
        dy = self._inputs.dy
        if self.case.relu:
            dy = dy.masked_fill(y.detach() <= 0, 0)
        leaves = self._inputs.leaves
        return torch.autograd.grad(self._z, leaves, dy, retain_graph=True)


def deviation(name: str, value: Tensor, expected: Tensor, dtype: str) -> str | None:
    """In words how a result differs from its reference by more than rounding."""
    if value.shape != expected.shape:
        return f'{name} has shape {tuple(value.shape)}, not {tuple(expected.shape)}'
    error = value.detach().double() - expected
    if not bool(torch.isfinite(error).all()):
        return f'{name} is not finite'
    norm_bound, max_bound = TOLERANCES[dtype]
    norm = float(error.norm() / expected.norm().clamp_min(1e-30))
    most = float(error.abs().max() / expected.abs().max().clamp_min(1e-30))
    if norm <= norm_bound and most <= max_bound:
        return None
    return (
        f'{name} is off by {norm:.1e} in norm and {most:.1e} at most, '
        f'allowed {norm_bound:.0e} and {max_bound:.0e}'
    )


def check(
    reference: Reference, forward: Callable[[Inputs], Tensor], inputs: Inputs
) -> list[str]:
    """Everything wrong with y and its gradients; an empty list opens the gate."""
    case = reference.case
    _poison(inputs.x)
    y = forward(inputs)
    if y.dtype != DTYPES[case.dtype]:
        return [f'y is {y.dtype}, not {DTYPES[case.dtype]}']
    found = [deviation('y', y, reference.y, case.dtype)]
    _poison(inputs.x)
    computed = gradients(y, inputs, keep_graph=True)
    names = ('dx', 'dweight', 'dbias', 'dresidual')
    for name, value, expected in zip(
        names, computed, reference.gradients(y), strict=False
    ):
        found.append(deviation(name, value, expected, case.dtype))
    return [text for text in found if text is not None]


def _poison(x: Tensor) -> None:
    """Leaves NaN in memory that the allocator hands out next for a map like x."""
    torch.full_like(x, float('nan'), requires_grad=False)

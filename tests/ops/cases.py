"""Random cases of the op, the bound on their errors, and the comparison itself."""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from gn_det.ops import group_norm
from gn_det.ops.layout import memory_format, strides_in
from gn_det.ops.limits import Limits
from gn_det.ops.reference import group_norm_bwd_ref, group_norm_ref

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'

# An error may be 2 x torch's own against float64 plus FLOOR x max|reference|: about 8
# ulp in float32 and one ulp in 16 bits. Triton's interpreter truncates float32 to
# bfloat16 where a GPU rounds, hence one ulp and not half of one.
FLOOR = {
    torch.float64: 1e-14,
    torch.float32: 1e-6,
    torch.float16: 1e-3,
    torch.bfloat16: 8e-3,
}
TIMES_TORCH = 2.0

# The regimes of the launcher, forced. 'split' spreads a map over many programs, one
# tile each; 'steps' lets few programs walk over many tiles.
_SPLIT = Limits(on_chip_fwd=0, on_chip_bwd=0, split_fwd_bytes=256, split_bwd=64)
LIMITS = {
    'on-chip': Limits(),
    'split': replace(_SPLIT, programs_per_sm=8),
    'steps': replace(_SPLIT, programs_per_sm=1, merge=32),
}
KINDS = {
    'plain': (None, False),
    'relu': ('relu', False),
    'silu': ('silu', False),
    'residual': (None, True),
    'residual_relu': ('relu', True),
    'residual_silu': ('silu', True),
}
ACTIVATIONS = {None: lambda z: z, 'relu': F.relu, 'silu': F.silu}
LAYOUTS = ('nchw', 'nhwc')


@dataclass(frozen=True)
class Case:
    """One call and its upstream gradient."""

    x: Tensor
    num_groups: int
    weight: Tensor | None
    bias: Tensor | None
    residual: Tensor | None
    dy: Tensor
    activation: str | None
    eps: float = 1e-5

    @property
    def inputs(self) -> tuple[Tensor | None, ...]:
        return self.x, self.weight, self.bias, self.residual

    def to(self, dtype: torch.dtype) -> 'Case':
        """The same values with every tensor in `dtype`."""
        names = ('x', 'weight', 'bias', 'residual', 'dy')
        tensors = {name: getattr(self, name) for name in names}
        return replace(
            self, **{n: t if t is None else t.to(dtype) for n, t in tensors.items()}
        )


def to_layout(x: Tensor, layout: str) -> Tensor:
    """x in the named layout, if its rank has two."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    if layout == 'nhwc' and x.ndim in formats:
        return x.contiguous(memory_format=formats[x.ndim])
    return x.contiguous()


def make_case(
    shape: tuple[int, ...],
    num_groups: int,
    *,
    dtype: torch.dtype = torch.float32,
    layout: str = 'nchw',
    kind: str = 'plain',
    mean: float = 3.0,
    std: float = 1.0,
    weight: bool = True,
    bias: bool = True,
    weight_dtype: torch.dtype | None = None,
    dy_layout: str | None = None,
    seed: int = 0,
) -> Case:
    """Random map, weight, bias, residual and upstream gradient."""
    generator = torch.Generator().manual_seed(seed)
    activation, residual = KINDS[kind]

    def randn(*size):
        return torch.randn(size, generator=generator, dtype=torch.float64)

    if weight_dtype is None:
        weight_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    C = shape[1]

    def put(values, layout):
        return to_layout(values.to(DEVICE, dtype), layout)

    return Case(
        x=put(randn(*shape) * std + mean, layout),
        num_groups=num_groups,
        weight=randn(C).to(DEVICE, weight_dtype) if weight else None,
        bias=randn(C).to(DEVICE, weight_dtype) if bias else None,
        residual=put(randn(*shape), layout) if residual else None,
        dy=put(randn(*shape), dy_layout or layout),
        activation=activation,
    )


def run(case: Case, impl: str | None) -> tuple[Tensor, list[Tensor | None]]:
    """y and the gradients of x, weight, bias and residual."""
    inputs = [t if t is None else t.detach().requires_grad_() for t in case.inputs]
    x, weight, bias, residual = inputs
    y = group_norm(
        x,
        case.num_groups,
        weight,
        bias,
        case.eps,
        activation=case.activation,
        residual=residual,
        impl=impl,
    )
    return y.detach(), _gradients(y, inputs, case.dy)


def run_torch(case: Case) -> tuple[Tensor, list[Tensor | None]]:
    """What torch gives for the case: the norm in float32, as under autocast."""
    inputs = [t if t is None else t.detach().requires_grad_() for t in case.inputs]
    dtype = torch.float64 if case.x.dtype == torch.float64 else torch.float32
    x, weight, bias, residual = (t if t is None else t.to(dtype) for t in inputs)
    if weight is None and bias is not None:
        # torch 2.8 to 2.11 at least have no gradient of a bias without a weight.
        weight = torch.ones_like(bias)
    y = F.group_norm(x, case.num_groups, weight, bias, case.eps)
    if residual is not None:
        y = y + residual
    y = ACTIVATIONS[case.activation](y)
    y = y.to(case.x.dtype)
    return y.detach(), _gradients(y, inputs, case.dy)


def _gradients(y, inputs, dy):
    found = iter(torch.autograd.grad(y, [t for t in inputs if t is not None], dy))
    return [t if t is None else next(found) for t in inputs]


def assert_accurate(case: Case, impl: str) -> None:
    """The outputs and gradients of `impl` keep to the bound."""
    y, gradients = run(case, impl)
    y_torch, gradients_torch = run_torch(case)
    exact = case.to(torch.float64)
    z_ref, _, _ = group_norm_ref(
        exact.x,
        case.num_groups,
        exact.weight,
        exact.bias,
        case.eps,
        residual=exact.residual,
    )
    if case.activation == 'relu':
        _assert_same_decisions(y, z_ref, case)
    assert y.dtype == case.x.dtype
    assert y.stride() == strides_in(y.shape, memory_format(case.x))
    _assert_close('y', y, ACTIVATIONS[case.activation](z_ref), y_torch)

    # Each implementation is held to the exact gradient of its own ReLU decisions; that
    # these agree with the exact ones, rounding aside, is asserted above.
    ours = _reference_gradients(exact, y)
    theirs = _reference_gradients(exact, y_torch)
    names = ('dx', 'dweight', 'dbias', 'dresidual')
    for name, gradient, ref, torchs, torchs_ref in zip(
        names, gradients, ours, gradients_torch, theirs, strict=True
    ):
        if gradient is None:
            continue
        summands = case.x.numel() / case.x.shape[1] if gradient.ndim == 1 else 1
        _assert_close(name, gradient, ref, torchs, torchs_ref, math.sqrt(summands))


def _reference_gradients(exact: Case, y: Tensor) -> list[Tensor | None]:
    gradients = group_norm_bwd_ref(
        exact.dy,
        exact.x,
        exact.num_groups,
        exact.weight,
        exact.bias,
        exact.eps,
        exact.activation,
        exact.residual,
        mask=~(y <= 0),
    )
    return [
        None if t is None else g for t, g in zip(exact.inputs, gradients, strict=True)
    ]


def _assert_same_decisions(y: Tensor, z_ref: Tensor, case: Case) -> None:
    """The ReLU keeps what the exact ReLU keeps, but for values within rounding of 0.

    Within rounding means the bound on z in the precision of the arithmetic, so that 16
    bits are held to the float32 bound; below the smallest float16 y is 0.
    """
    differs = (y > 0) != (z_ref > 0)
    if case.x.dtype in (torch.float16, torch.bfloat16):
        case = case.to(torch.float32)
    z_torch, _ = run_torch(replace(case, activation=None))
    own = (z_torch - z_ref).abs().max().item() if z_ref.numel() else 0.0
    largest = z_ref.abs().max().item() if z_ref.numel() else 0.0
    reach = TIMES_TORCH * own + FLOOR[case.x.dtype] * largest
    smallest = torch.finfo(torch.float16).smallest_normal / 1024
    assert (z_ref[differs].abs() <= reach + smallest).all()


def _assert_close(
    name: str,
    value: Tensor,
    ref: Tensor,
    torchs: Tensor,
    torchs_ref: Tensor | None = None,
    growth: float = 1.0,
) -> None:
    torchs_ref = ref if torchs_ref is None else torchs_ref
    error = (value.double() - ref).abs().max().item() if ref.numel() else 0.0
    own = (torchs.double() - torchs_ref).abs().max().item() if ref.numel() else 0.0
    largest = ref.abs().max().item() if ref.numel() else 0.0
    bound = TIMES_TORCH * own + FLOOR[value.dtype] * growth * largest
    assert error <= bound, (
        f'{name}: error {error:.2e} > {bound:.2e} (torch {own:.2e}, max {largest:.2e})'
    )

"""The implementations under comparison, each a function from inputs to y."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cases import DTYPES, Case, Inputs
from gn_det.ops import group_norm

Forward = Callable[[Inputs], Tensor]


def torch_forward(
    x: Tensor,
    G: int,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    relu: bool,
) -> Tensor:
    """The chain as mmdet's blocks run it: norm, add in place, ReLU in place."""
    y = F.group_norm(x, G, weight, bias)
    if residual is not None:
        y += residual
    return F.relu(y, inplace=True) if relu else y


def _gn_det(case: Case) -> Forward:
    activation = 'relu' if case.relu else None

    def forward(inputs: Inputs) -> Tensor:
        # Asked for by name: a fallback to torch must not be timed as this one.
        return group_norm(
            inputs.x,
            case.G,
            inputs.weight,
            inputs.bias,
            activation=activation,
            residual=inputs.residual,
            impl='triton',
        )

    return forward


def _torch(case: Case) -> Forward:
    def forward(inputs: Inputs) -> Tensor:
        return torch_forward(
            inputs.x, case.G, inputs.weight, inputs.bias, inputs.residual, case.relu
        )

    return forward


def _torch_autocast(case: Case) -> Forward:
    dtype = DTYPES[case.dtype]

    def forward(inputs: Inputs) -> Tensor:
        # Without the cache of casts, which outlives a captured graph's memory.
        with torch.autocast(inputs.x.device.type, dtype, cache_enabled=False):
            y = torch_forward(
                inputs.x, case.G, inputs.weight, inputs.bias, inputs.residual, case.relu
            )
            return y.to(dtype)

    return forward


def _torch_compile(case: Case) -> Forward:
    # Each case compiles afresh: shapes must not become dynamic, nor pile up until the
    # recompile limit silently turns compilation off.
    torch._dynamo.reset()
    # A donated buffer forbids running one backward pass twice, which the timing does.
    torch._functorch.config.donated_buffer = False
    compiled = torch.compile(torch_forward, fullgraph=True, dynamic=False)

    def forward(inputs: Inputs) -> Tensor:
        return compiled(
            inputs.x, case.G, inputs.weight, inputs.bias, inputs.residual, case.relu
        )

    return forward


PROVIDERS: dict[str, Callable[[Case], Forward]] = {
    'gn_det': _gn_det,
    'torch': _torch,
    'torch_autocast': _torch_autocast,
    'torch_compile': _torch_compile,
}


def applies(name: str, case: Case) -> bool:
    """Whether a provider means something for a case: autocast acts on 16-bit maps."""
    return name != 'torch_autocast' or case.dtype != 'fp32'


def inputs_for(name: str, case: Case, inputs: Inputs) -> Inputs:
    """Inputs as a network of this provider holds them, cast outside of the timing.

    Torch's CUDA kernels want weight and bias in x's dtype (a model cast as a whole);
    under autocast and in gn_det they are fp32.
    """
    if name not in ('torch', 'torch_compile'):
        return inputs
    dtype = DTYPES[case.dtype]
    weight = inputs.weight.detach().to(dtype).requires_grad_()
    bias = inputs.bias.detach().to(dtype).requires_grad_()
    return Inputs(inputs.x, weight, bias, inputs.residual, inputs.dy)


def gradients(y: Tensor, inputs: Inputs, *, keep_graph: bool) -> tuple[Tensor, ...]:
    """(dx, dweight, dbias[, dresidual]) for the upstream gradient dy."""
    return torch.autograd.grad(y, inputs.leaves, inputs.dy, retain_graph=keep_graph)

"""The public function, its torch.library operators and the eager short path."""

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from gn_det.ops import torch_impl
from gn_det.ops.dispatch import CHOICES, requested, select
from gn_det.ops.layout import memory_format
from gn_det.ops.recompute import state as recomputation

_ACTIVATIONS = (None, 'relu')
_VECTOR_DTYPES = {
    torch.float32: (torch.float32,),
    torch.float16: (torch.float16, torch.float32),
    torch.bfloat16: (torch.bfloat16, torch.float32),
    torch.float64: (torch.float64,),
}
_PLAIN = (Tensor, Parameter, type(None))


def group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
    impl: str | None = None,
) -> Tensor:
    """Group Norm, residual addition and activation in one operation.

        y = act((x - mean) * rstd * weight + bias + residual)

    mean and rstd = 1 / sqrt(var + eps), with the biased variance, are taken over the
    D * H * W elements of each sample and group of D = C / num_groups channels
    (Wu & He, Group Normalization, https://arxiv.org/abs/1803.08494).

    Args:
        x: (N, C, *) of any rank >= 2, float32, float16, bfloat16 or float64 (the last
            always by torch). N = 0 gives an empty output and zero gradients.
        num_groups: G, a divisor of C.
        weight: (C,), in float32 or x's dtype; None means 1.
        bias: (C,), in float32 or x's dtype; None means 0.
        eps: added to the variance.
        activation: None or 'relu'. A NaN stays a NaN, as in torch.relu.
        residual: added before the activation; x's shape and dtype, any layout.
        impl: 'auto', 'torch' or 'triton'; overrides the context manager
            `implementation`, which overrides the variable GN_DET_IMPL.

    Returns:
        y with x's shape, dtype and memory format (channels_last and channels_last_3d
        included; slices get the format torch would give them).

    Raises:
        RuntimeError: for shapes, dtypes or devices that do not fit, and where an
            explicitly chosen implementation cannot take the call.
        ValueError: for a single value per channel, as torch.nn.functional.group_norm
            raises it, and for unknown `activation` or `impl`.

    Statistics and affine arithmetic are float32, whatever x is, and rounded once. The
    output follows x under torch.autocast as well, where torch would return float32.
    Backward keeps x, mean and rstd; y too if a residual and a ReLU meet; nothing when
    no input needs a gradient. Equal inputs give equal bits. In a compiled graph the
    implementation is chosen when the graph runs.
    """
    _validate(x, num_groups, weight, bias, activation, residual, impl)
    relu = activation is not None
    if recomputation.region is not None:
        return _recomputed(x, num_groups, weight, bias, eps, activation, residual, impl)
    needs_composed = (
        torch._C._is_tracing()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )
    if (
        needs_composed
        or torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or type(x) not in _PLAIN
        or type(weight) not in _PLAIN
        or type(bias) not in _PLAIN
        or type(residual) not in _PLAIN
    ):
        if needs_composed or torch.onnx.is_in_onnx_export():
            return _composed(x, num_groups, weight, bias, eps, residual, relu)
        # Something other than plain autograd has to see the call.
        y, _, _ = torch.ops.gn_det.group_norm(
            x, num_groups, weight, bias, eps, residual, relu, impl
        )
        return y
    chosen = select(x, num_groups, weight, bias, residual, impl)
    if torch.is_grad_enabled() and (
        x.requires_grad
        or (weight is not None and weight.requires_grad)
        or (bias is not None and bias.requires_grad)
        or (residual is not None and residual.requires_grad)
    ):
        return _GroupNorm.apply(
            x, weight, bias, residual, num_groups, eps, relu, chosen
        )
    return chosen.group_norm_fwd(x, num_groups, weight, bias, eps, residual, relu)[0]


def _recomputed(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: str | None,
    residual: Tensor | None,
    impl: str | None,
) -> Tensor:
    """`group_norm` inside `recompute_activations`."""
    # Backward may run outside the context that chose.
    impl = requested(impl)

    def function(x: Tensor, residual: Tensor | None) -> Tensor:
        return group_norm(
            x,
            num_groups,
            weight,
            bias,
            eps,
            activation=activation,
            residual=residual,
            impl=impl,
        )

    constants = [vector for vector in (weight, bias) if vector is not None]
    return recomputation.region.run(function, x, residual, constants)


def _composed(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    residual: Tensor | None,
    relu: bool,
) -> Tensor:
    """`group_norm` out of torch's operators.

    For graphs that leave this process, and where `torch.func` or forward-mode autograd
    looks on, to which our operators say nothing.
    """
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    cast = [t if t is None else t.to(dtype) for t in (x, weight, bias)]
    y = torch.nn.functional.group_norm(cast[0], num_groups, *cast[1:], eps)
    if residual is not None:
        y = y + residual
    if relu:
        y = torch.relu(y)
    return y.to(x.dtype)


def _validate(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    activation: str | None,
    residual: Tensor | None,
    impl: str | None,
) -> None:
    """Raises what torch.nn.functional.group_norm raises, and for the fused parts."""
    shape = x.shape
    if len(shape) < 2:
        raise RuntimeError(
            f'Expected at least 2 dimensions for input tensor but received {len(shape)}'
        )
    N, C = shape[0], shape[1]
    HW = shape[2:].numel()
    dtype = x.dtype
    device = x.device
    if num_groups <= 0:
        raise RuntimeError(
            f'Expected num groups to be greater than 0, got {num_groups}'
        )
    if C <= 0:
        raise RuntimeError(f'Expected number of channels to be greater than 0, got {C}')
    if HW <= 0:
        raise RuntimeError(f'Expected HxW to be greater than 0, got {HW}')
    if C % num_groups != 0:
        raise RuntimeError(
            'Expected number of channels in input to be divisible by num_groups, but '
            f'got input of shape {list(shape)} and num_groups={num_groups}'
        )
    if N * C // num_groups * HW == 1:
        raise ValueError(
            'Expected more than 1 value per channel when training, got input size '
            f'{list(shape)}'
        )
    if dtype not in _VECTOR_DTYPES:
        raise RuntimeError(f'Expected a floating-point input, but got {dtype}')
    dtypes = _VECTOR_DTYPES[dtype]
    if weight is not None and (
        weight.shape != (C,) or weight.dtype not in dtypes or weight.device != device
    ):
        _refuse_vector('weight', weight, x)
    if bias is not None and (
        bias.shape != (C,) or bias.dtype not in dtypes or bias.device != device
    ):
        _refuse_vector('bias', bias, x)
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation must be None or 'relu', but got {activation!r}")
    if impl is not None and impl not in CHOICES:
        requested(impl)
    if residual is not None and (
        residual.shape != shape or residual.dtype != dtype or residual.device != device
    ):
        raise RuntimeError(
            f'Expected residual of shape {list(shape)} and dtype {dtype} on '
            f'{device}, as input, but got {list(residual.shape)} and '
            f'{residual.dtype} on {residual.device}'
        )


def _refuse_vector(name: str, vector: Tensor, x: Tensor) -> None:
    """Says what keeps a weight or bias from going with x."""
    if vector.shape != (x.shape[1],):
        raise RuntimeError(
            f'Expected {name} to be a vector of size equal to the number of '
            f'channels in input, but got {name} of shape '
            f'{list(vector.shape)} and input of shape {list(x.shape)}'
        )
    if vector.dtype not in _VECTOR_DTYPES[x.dtype]:
        raise RuntimeError(
            f'Expected {name} in float32 or in the dtype of input, {x.dtype}, but '
            f'got {vector.dtype}'
        )
    raise RuntimeError(
        f'Expected {name} on {x.device}, as input, but it is on {vector.device}'
    )


class _GroupNorm(torch.autograd.Function):
    """The eager short path: the launcher without the operator dispatch in Python."""

    @staticmethod
    def forward(ctx, x, weight, bias, residual, num_groups, eps, relu, impl):
        y, mean, rstd = impl.group_norm_fwd(
            x, num_groups, weight, bias, eps, residual, relu
        )
        kept_y = y if relu and residual is not None else None
        _keep(ctx, ctx.needs_input_grad[:3], x, mean, rstd, weight, bias, kept_y)
        ctx.settings = (num_groups, eps, relu, impl)
        return y

    @staticmethod
    def backward(ctx, dy):
        num_groups, eps, relu, impl = ctx.settings
        x, mean, rstd, weight, bias, y = ctx.saved_tensors
        needs = ctx.needs_input_grad[:3]
        need_dresidual = ctx.needs_input_grad[3]
        if x is None or torch.is_grad_enabled():
            gradients = _backward_composed(
                dy, x, weight, bias, y, num_groups, eps, relu, needs
            )
        else:
            gradients = impl.group_norm_bwd(
                dy, x, mean, rstd, weight, bias, y, num_groups, eps, relu, needs
            )
        return (*_with_dresidual(gradients, dy, need_dresidual), None, None, None, None)


def _keep(
    ctx,
    needs: tuple[bool, bool, bool],
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    y: Tensor | None,
) -> None:
    """Keeps what the backward pass reads: of the norm nothing if no input needs it."""
    if True in needs:
        ctx.save_for_backward(x, mean, rstd, weight, bias, y)
    else:
        ctx.save_for_backward(None, None, None, None, None, y)


def _with_dresidual(
    gradients: tuple[Tensor | None, ...], dy: Tensor, need: bool
) -> tuple[Tensor | None, ...]:
    """Completes (dx, dweight, dbias, dresidual): without a ReLU dresidual is dy."""
    dx, dweight, dbias, dresidual = gradients
    if need and dresidual is None:
        dresidual = dy
    return dx, dweight, dbias, dresidual if need else None


def _backward_composed(
    dy: Tensor,
    x: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    y: Tensor | None,
    num_groups: int,
    eps: float,
    relu: bool,
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor | None, ...]:
    """The backward pass out of torch's operators, which autograd can differentiate."""
    dresidual = None
    if y is not None:
        dy = dresidual = dy.masked_fill(y.detach() <= 0, 0)
    elif relu:
        with torch.no_grad():
            y, _, _ = torch_impl.group_norm_fwd(
                x, num_groups, weight, bias, eps, None, True
            )
        dy = dy.masked_fill(y <= 0, 0)
    if not any(needs):
        return None, None, None, dresidual
    with torch.enable_grad():
        # Aliases keep the gradients apart where one tensor serves as two inputs.
        inputs = [t if t is None else t.view_as(t) for t in (x, weight, bias)]
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        cast = [t if t is None else t.to(dtype) for t in inputs]
        z = torch.nn.functional.group_norm(cast[0], num_groups, *cast[1:], eps)
        gradients = iter(
            torch.autograd.grad(
                z,
                [t for t, need in zip(inputs, needs, strict=True) if need],
                dy.to(dtype),
                create_graph=True,
            )
        )
    return (*(next(gradients) if need else None for need in needs), dresidual)


@torch.library.custom_op(
    'gn_det::group_norm',
    mutates_args=(),
    schema='(Tensor x, int num_groups, Tensor? weight, Tensor? bias, float eps, '
    'Tensor? residual, bool relu, str? impl) -> (Tensor, Tensor, Tensor)',
)
def _group_norm_op(x, num_groups, weight, bias, eps, residual, relu, impl):
    chosen = select(x, num_groups, weight, bias, residual, impl)
    return chosen.group_norm_fwd(x, num_groups, weight, bias, eps, residual, relu)


@_group_norm_op.register_fake
def _group_norm_fake(x, num_groups, weight, bias, eps, residual, relu, impl):
    y = torch.empty_like(x, memory_format=memory_format(x))
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    mean = x.new_empty((x.shape[0], num_groups), dtype=dtype)
    return y, mean, torch.empty_like(mean)


@torch.library.custom_op(
    'gn_det::group_norm_backward',
    mutates_args=(),
    schema='(Tensor dy, Tensor x, Tensor mean, Tensor rstd, Tensor? weight, '
    'Tensor? bias, Tensor? y, int num_groups, float eps, bool relu, bool[] needs, '
    'str? impl) -> (Tensor, Tensor, Tensor, Tensor)',
)
def _group_norm_backward_op(
    dy, x, mean, rstd, weight, bias, y, num_groups, eps, relu, needs, impl
):
    chosen = select(x, num_groups, weight, bias, None, impl)
    gradients = chosen.group_norm_bwd(
        dy, x, mean, rstd, weight, bias, y, num_groups, eps, relu, tuple(needs)
    )
    # An operator returns tensors: an empty one stands for a gradient nobody asked for.
    return tuple(x.new_empty(0) if g is None else g for g in gradients)


@_group_norm_backward_op.register_fake
def _group_norm_backward_fake(
    dy, x, mean, rstd, weight, bias, y, num_groups, eps, relu, needs, impl
):
    fmt = memory_format(x)
    return (
        torch.empty_like(x, memory_format=fmt) if needs[0] else x.new_empty(0),
        weight.new_empty(weight.shape) if needs[1] else x.new_empty(0),
        bias.new_empty(bias.shape) if needs[2] else x.new_empty(0),
        x.new_empty(0) if y is None else torch.empty_like(x, memory_format=fmt),
    )


def _setup_context(ctx, inputs, output):
    x, num_groups, weight, bias, eps, residual, relu, impl = inputs
    y, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    needs = (ctx.needs_input_grad[0], ctx.needs_input_grad[2], ctx.needs_input_grad[3])
    kept_y = y if relu and residual is not None else None
    _keep(ctx, needs, x, mean, rstd, weight, bias, kept_y)
    ctx.settings = (num_groups, eps, relu, impl)


def _backward(ctx, dy, dmean, drstd):
    num_groups, eps, relu, impl = ctx.settings
    x, mean, rstd, weight, bias, y = ctx.saved_tensors
    needs = (ctx.needs_input_grad[0], ctx.needs_input_grad[2], ctx.needs_input_grad[3])
    need_dresidual = ctx.needs_input_grad[5]
    if x is None or torch.is_grad_enabled():
        gradients = _backward_composed(
            dy, x, weight, bias, y, num_groups, eps, relu, needs
        )
    else:
        gradients = torch.ops.gn_det.group_norm_backward(
            dy, x, mean, rstd, weight, bias, y, num_groups, eps, relu, needs, impl
        )
        asked = (*needs, y is not None)
        gradients = tuple(
            g if keep else None for g, keep in zip(gradients, asked, strict=True)
        )
    dx, dweight, dbias, dresidual = _with_dresidual(gradients, dy, need_dresidual)
    return dx, None, dweight, dbias, None, dresidual, None, None


_group_norm_op.register_autograd(_backward, setup_context=_setup_context)

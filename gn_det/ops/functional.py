"""The public function, its torch.library operators and the eager short path."""

import functools

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter
from torch.overrides import handle_torch_function, has_torch_function_variadic

from gn_det.ops import torch_impl
from gn_det.ops.dispatch import requested, select
from gn_det.ops.layout import memory_format
from gn_det.ops.recompute import state as recomputation

_ACTIVATIONS = (None, 'relu', 'silu')
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
        activation: None, 'relu' or 'silu' (z * sigmoid(z)). A NaN stays a NaN, as in
            torch.
        residual: added before the activation; x's shape and dtype, any layout.
        impl: 'auto', 'torch' or 'triton'; None means what the context manager
            `implementation` says, or outside of it the variable GN_DET_IMPL.

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
    Backward keeps x, mean and rstd, and where a residual and an activation meet one map
    more: y for a ReLU, the residual for SiLU. Other parts of a network keep both in any
    case, y as the input of the next convolution, the residual as that of its own block.
    Nothing is kept when no input needs a gradient. Equal inputs give equal bits.
    torch.compile and torch.export keep the call as one operator, torch.fx as one node;
    under torch.func's transforms and in ONNX it is made of torch's operators.
    """
    plain = (
        type(x) in _PLAIN
        and type(weight) in _PLAIN
        and type(bias) in _PLAIN
        and type(residual) in _PLAIN
    )
    if not plain and has_torch_function_variadic(x, weight, bias, residual):
        # torch.fx's proxies, and tensors with a say in what is done to them.
        return handle_torch_function(
            group_norm,
            (x, weight, bias, residual),
            *(x, num_groups, weight, bias, eps),
            activation=activation,
            residual=residual,
            impl=impl,
        )
    _validate(x, num_groups, weight, bias, activation, residual)
    eps = float(eps)
    impl = requested(impl)
    if recomputation.region is not None:
        return _recomputed(x, num_groups, weight, bias, eps, activation, residual, impl)
    compiling = torch.compiler.is_compiling()
    # Before torch 2.15 a compiler cannot read whether something else traces.
    needs_composed = (
        (not compiling and torch._C._is_tracing())
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )
    if (
        needs_composed
        or compiling
        or not plain
        or torch._C._len_torch_dispatch_stack() > 0
    ):
        if needs_composed or torch.onnx.is_in_onnx_export():
            return composed(x, num_groups, weight, bias, eps, activation, residual)
        # Something other than plain autograd has to see the call.
        y, _, _ = torch.ops.gn_det.group_norm(
            x, num_groups, weight, bias, eps, activation, residual, impl
        )
        return y
    chosen = select(x, impl)
    if torch.is_grad_enabled() and (
        x.requires_grad
        or (weight is not None and weight.requires_grad)
        or (bias is not None and bias.requires_grad)
        or (residual is not None and residual.requires_grad)
    ):
        settings = (num_groups, eps, activation, chosen)
        return _short_path(x, weight, bias, residual, settings)
    return chosen.group_norm_fwd(
        x, num_groups, weight, bias, eps, activation, residual
    )[0]


def _recomputed(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: str | None,
    residual: Tensor | None,
    impl: str,
) -> Tensor:
    """`group_norm` inside `recompute_activations`."""

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


def composed(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: str | None,
    residual: Tensor | None,
) -> Tensor:
    """`group_norm` out of torch's operators, in the subset of Python of TorchScript.

    For graphs that leave this process, and where `torch.func` or forward-mode autograd
    looks on, to which our operators say nothing.
    """
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    if weight is not None:
        weight = weight.to(dtype)
    if bias is not None:
        bias = bias.to(dtype)
    y = torch.nn.functional.group_norm(x.to(dtype), num_groups, weight, bias, eps)
    if residual is not None:
        y = y + residual
    if activation is not None:
        y = torch.relu(y) if activation == 'relu' else torch.nn.functional.silu(y)
    return y.to(x.dtype)


def _validate(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    activation: str | None,
    residual: Tensor | None,
) -> None:
    """Raises what torch.nn.functional.group_norm raises, and for the fused parts."""
    shape = x.shape
    if len(shape) < 2:
        raise RuntimeError(
            f'Expected at least 2 dimensions for input tensor but received {len(shape)}'
        )
    C = shape[1]
    dtype = x.dtype
    device = x.device
    if num_groups <= 0:
        raise RuntimeError(
            f'Expected num groups to be greater than 0, got {num_groups}'
        )
    if C <= 0:
        raise RuntimeError(f'Expected number of channels to be greater than 0, got {C}')
    if 0 in shape[2:]:
        raise RuntimeError('Expected HxW to be greater than 0, got 0')
    if C % num_groups != 0:
        raise RuntimeError(
            'Expected number of channels in input to be divisible by num_groups, but '
            f'got input of shape {list(shape)} and num_groups={num_groups}'
        )
    if x.numel() == num_groups:
        raise ValueError(
            'Expected more than 1 value per channel when training, got input size '
            f'{list(shape)}'
        )
    if dtype not in _VECTOR_DTYPES:
        hint = '; nn.GroupNorm has one for quantised maps' if x.is_quantized else ''
        raise RuntimeError(f'Expected a floating-point input, but got {dtype}{hint}')
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
        raise ValueError(
            f"activation must be None, 'relu' or 'silu', but got {activation!r}"
        )
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
    def forward(ctx, x, weight, bias, residual, settings):
        num_groups, eps, activation, chosen = settings
        output = chosen.group_norm_fwd(
            x, num_groups, weight, bias, eps, activation, residual
        )
        inputs = (x, weight, bias, residual)
        need_dx, need_dweight, need_dbias, *_ = ctx.needs_input_grad
        needs = (need_dx, need_dweight, need_dbias)
        ctx.settings = (num_groups, eps, activation, chosen.group_norm_bwd)
        ctx.save_for_backward(*_kept(inputs, activation, output, needs))
        return output[0]

    @staticmethod
    def backward(ctx, dy):
        need_dx, need_dweight, need_dbias, need_dresidual, _ = ctx.needs_input_grad
        needs = (need_dx, need_dweight, need_dbias)
        dx, dweight, dbias, dresidual = _gradients(
            dy, ctx.saved_tensors, ctx.settings, needs, need_dresidual
        )
        return dx, dweight, dbias, dresidual, None


# Function.apply asks what `group_norm` has asked before it comes here.
_short_path = super(torch.autograd.Function, _GroupNorm).apply


def _kept(
    inputs: tuple[Tensor | None, ...],
    activation: str | None,
    output: tuple[Tensor, Tensor, Tensor],
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor | None, ...]:
    """What `_gradients` reads, of (x, weight, bias, residual) and (y, mean, rstd).

    Nothing of the norm if only the residual needs a gradient that does not depend on
    it.
    """
    x, weight, bias, residual = inputs
    y, mean, rstd = output
    kept = None
    if residual is not None and activation is not None:
        kept = y if activation == 'relu' else residual
    if True in needs or activation == 'silu':
        return x, weight, bias, kept, mean, rstd
    return None, None, None, kept, None, None


def _gradients(
    dy: Tensor,
    saved: tuple[Tensor | None, ...],
    settings: tuple,
    needs: tuple[bool, bool, bool],
    need_dresidual: bool,
) -> tuple[Tensor | None, ...]:
    """Gradients of (x, weight, bias, residual)."""
    x, weight, bias, kept, mean, rstd = saved
    num_groups, eps, activation, backward = settings
    if x is None or torch.is_grad_enabled():
        gradients = _backward_composed(
            dy, x, num_groups, weight, bias, eps, activation, kept, needs
        )
    else:
        gradients = backward(
            dy, x, num_groups, weight, bias, eps, activation, kept, mean, rstd, needs
        )
    if need_dresidual and kept is not None:
        return gradients
    return (*gradients[:3], dy if need_dresidual else None)


def _backward_composed(
    dy: Tensor,
    x: Tensor | None,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: str | None,
    kept: Tensor | None,
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor | None, ...]:
    """The backward pass out of torch's operators, which autograd can differentiate."""
    residual = dresidual = None
    if activation == 'relu':
        # The mask is a constant, and behind it the ReLU is the identity.
        if kept is None:
            with torch.no_grad():
                y, _, _ = torch_impl.group_norm_fwd(
                    x, num_groups, weight, bias, eps, activation, None
                )
            dy = dy.masked_fill(y <= 0, 0)
        else:
            dy = dresidual = dy.masked_fill(kept.detach() <= 0, 0)
        activation = None
    elif activation == 'silu':
        residual = kept
    wanted = (*needs, residual is not None)
    if not any(wanted):
        return None, None, None, dresidual
    with torch.enable_grad():
        # Aliases keep the gradients apart where one tensor serves as two inputs.
        inputs = [t if t is None else t.view_as(t) for t in (x, weight, bias, residual)]
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        wide, w, b, r = inputs
        y = composed(wide.to(dtype), num_groups, w, b, eps, activation, r)
        gradients = iter(
            torch.autograd.grad(
                y,
                [t for t, need in zip(inputs, wanted, strict=True) if need],
                dy.to(dtype),
                create_graph=True,
            )
        )
    found = [next(gradients) if need else None for need in wanted]
    return (*found[:3], dresidual if residual is None else found[3])


@torch.library.custom_op(
    'gn_det::group_norm',
    mutates_args=(),
    schema='(Tensor x, int num_groups, Tensor? weight, Tensor? bias, float eps, '
    'str? activation, Tensor? residual, str impl) -> (Tensor, Tensor, Tensor)',
)
def _group_norm_op(x, num_groups, weight, bias, eps, activation, residual, impl):
    return select(x, impl).group_norm_fwd(
        x, num_groups, weight, bias, eps, activation, residual
    )


@_group_norm_op.register_fake
def _group_norm_fake(x, num_groups, weight, bias, eps, activation, residual, impl):
    y = torch.empty_like(x, memory_format=memory_format(x))
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    mean = x.new_empty((x.shape[0], num_groups), dtype=dtype)
    return y, mean, torch.empty_like(mean)


@torch.library.custom_op(
    'gn_det::group_norm_backward',
    mutates_args=(),
    schema='(Tensor dy, Tensor x, int num_groups, Tensor? weight, Tensor? bias, '
    'float eps, str? activation, Tensor? kept, Tensor mean, Tensor rstd, '
    'bool[] needs, str impl) -> (Tensor, Tensor, Tensor, Tensor)',
)
def _group_norm_backward_op(
    dy, x, num_groups, weight, bias, eps, activation, kept, mean, rstd, needs, impl
):
    gradients = select(x, impl).group_norm_bwd(
        *(dy, x, num_groups, weight, bias, eps, activation, kept, mean, rstd),
        tuple(needs),
    )
    # An operator returns tensors: an empty one stands for a gradient nobody asked for.
    return tuple(x.new_empty(0) if g is None else g for g in gradients)


@_group_norm_backward_op.register_fake
def _group_norm_backward_fake(
    dy, x, num_groups, weight, bias, eps, activation, kept, mean, rstd, needs, impl
):
    fmt = memory_format(x)
    return (
        torch.empty_like(x, memory_format=fmt) if needs[0] else x.new_empty(0),
        weight.new_empty(weight.shape) if needs[1] else x.new_empty(0),
        bias.new_empty(bias.shape) if needs[2] else x.new_empty(0),
        x.new_empty(0) if kept is None else torch.empty_like(x, memory_format=fmt),
    )


def _backward_through_operator(impl: str, *arguments) -> tuple[Tensor | None, ...]:
    """`group_norm_bwd` of an implementation, by name and visible to a compiler."""
    *_, kept, _, _, needs = arguments
    gradients = torch.ops.gn_det.group_norm_backward(*arguments, impl)
    asked = (*needs, kept is not None)
    return tuple(g if keep else None for g, keep in zip(gradients, asked, strict=True))


def _setup_context(ctx, inputs, output) -> None:
    x, num_groups, weight, bias, eps, activation, residual, impl = inputs
    _, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    ctx.settings = (num_groups, eps, activation, impl)
    need_dx, _, need_dweight, need_dbias, *_ = ctx.needs_input_grad
    needs = (need_dx, need_dweight, need_dbias)
    tensors = (x, weight, bias, residual)
    ctx.save_for_backward(*_kept(tensors, activation, output, needs))


def _operator_backward(ctx, dy: Tensor, *_: object) -> tuple[Tensor | None, ...]:
    """Gradients of (x, num_groups, weight, bias, eps, activation, residual, impl)."""
    *settings, impl = ctx.settings
    backward = functools.partial(_backward_through_operator, impl)
    need_dx, _, need_dweight, need_dbias, _, _, need_dresidual, _ = ctx.needs_input_grad
    dx, dweight, dbias, dresidual = _gradients(
        dy,
        ctx.saved_tensors,
        (*settings, backward),
        (need_dx, need_dweight, need_dbias),
        need_dresidual,
    )
    return dx, None, dweight, dbias, None, None, dresidual, None


_group_norm_op.register_autograd(_operator_backward, setup_context=_setup_context)

"""Calls of a norm with what follows it: what the fused forwards are made of.

What is no plain fused norm, has an activation that the operation does not know, or has
hooks that would see another input or output, is called one after the other, as in the
stock block. So blocks may mix, and each of these is right for any norm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn

from gn_det.fusion.core import FusedModule, fusion_of
from gn_det.layers import FUSED_NORMS, FusedGroupNorm

Activation = nn.Module | Callable[[Tensor], Tensor]

ACTIVATIONS = {nn.ReLU: 'relu', nn.SiLU: 'silu'}
"""The modules that the operation can apply, by its names for them."""

_FUNCTIONS = {F.relu: 'relu', torch.relu: 'relu', F.silu: 'silu'}

NOTHING = 'nothing follows it that could be fused'


def norm_act(norm: nn.Module, act: Activation, x: Tensor) -> Tensor:
    """`act(norm(x))`, in one operation where both are plain.

    Args:
        norm: the norm.
        act: a module such as `nn.ReLU()`, or a function such as `F.relu`.
        x: (N, C, *).
    """
    activation = activation_of(act) if takes_in(norm) else None
    if activation is None:
        return act(norm(x))
    return norm(x, activation=activation)


def norm_add(norm: nn.Module, x: Tensor, residual: Tensor) -> Tensor:
    """`norm(x) + residual`, in one operation where dtypes and shapes are the same."""
    if takes_in(norm) and _adds_up(x, residual):
        return norm(x, residual)
    return norm(x) + residual


def norm_add_act(
    norm: nn.Module, act: Activation, x: Tensor, residual: Tensor
) -> Tensor:
    """`act(norm(x) + residual)`, in one operation where all is plain."""
    activation = activation_of(act) if takes_in(norm) else None
    if activation is None or not _adds_up(x, residual):
        return act(norm_add(norm, x, residual))
    return norm(x, residual, activation=activation)


norm_relu = norm_act
norm_add_relu = norm_add_act


def kind_of(act: Activation | None, *, add: bool = False) -> str:
    """What a norm takes in, as a block's `fused_norms` says it: a kind, or why nothing.

    Args:
        act: what follows the norm, or the sum.
        add: whether something is added between them.
    """
    activation = ACTIVATIONS.get(type(act)) or _FUNCTIONS.get(act)
    if activation is None:
        name = getattr(act, '__name__', type(act).__name__)
        other = NOTHING if act is None else f'{name} follows it, which cannot be fused'
        return 'add' if add else other
    return f'add_{activation}' if add else activation


class FusedNorm(FusedModule):
    """Mixed into a host's own class of Group Norm, which is then called as ours."""

    always = True

    def takes_in(self) -> bool:
        """Whether it normalises and does nothing else."""
        return True

    normalised = FusedGroupNorm.forward
    forward = normalised


def takes_in(norm: nn.Module) -> bool:
    """Whether a norm can be called with what follows it."""
    # A subclass may do more than normalise.
    if type(norm) in FUSED_NORMS:
        return is_bare(norm)
    fused = isinstance(norm, FusedNorm) and type(norm)._itself is type(norm)
    return fused and norm.takes_in() and is_bare(norm)


def ending(module: nn.Module, kind: str) -> Iterator[tuple[nn.Module, str]]:
    """For `fused_norms`: the norm that another block of this one ends in, if any."""
    last: nn.Module | None = module
    while last is not None and not isinstance(last, nn.GroupNorm):
        if isinstance(last, FusedModule):
            last = last.last(last)
        else:
            fusion, changed = fusion_of(type(last))
            last = None if changed else fusion.last(last)
    if last is not None:
        yield last, kind


def is_bare(module: nn.Module) -> bool:
    """Whether a call of the module is the forward of its class and nothing else."""
    return not (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or 'forward' in module.__dict__
    )


def checkpointed(
    block: nn.Module, function: Callable[[Tensor], Tensor], x: Tensor
) -> Tensor:
    """OpenMMLab's gradient checkpointing of a block, asked for by `with_cp`."""
    if block.with_cp and x.requires_grad:
        return torch.utils.checkpoint.checkpoint(function, x, use_reentrant=False)
    return function(x)


def upsample(x: Tensor, **settings: object) -> Tensor:
    """`F.interpolate`, of nearest neighbours in the dtype of x.

    CUDA's autocast runs it in float32. Neighbours are copied, which is exact in any
    dtype; in float32 every map behind the sum, and the sum, would be as wide.
    """
    kind = x.device.type
    copies = settings.get('mode', 'nearest') in ('nearest', 'nearest-exact')
    # Not every device has autocast, the meta device for one.
    if copies and torch.amp.is_autocast_available(kind):
        with torch.autocast(kind, enabled=False):
            return F.interpolate(x, **settings)
    return F.interpolate(x, **settings)


def activation_of(act: Activation) -> str | None:
    """The operation's name for a plain activation that it can apply."""
    if isinstance(act, nn.Module):
        return ACTIVATIONS.get(type(act)) if is_bare(act) else None
    return _FUNCTIONS.get(act)


def _adds_up(x: Tensor, r: Tensor) -> bool:
    # Where dtypes differ the sum promotes, where shapes differ it broadcasts.
    return x.dtype == r.dtype and x.shape == r.shape

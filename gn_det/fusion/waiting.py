"""A norm's output that waits in a local variable for what a forward does with it.

Forwards that use these functions need not know where their norms are: a norm may be a
child, or stand at the end of one. What is no norm, activation or sum is computed as in
the stock forward. Run with a `Dry` in the place of a map, nothing is computed, and the
norms that would be called are noted with what they would take in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from gn_det.fusion.calls import (
    NOTHING,
    Activation,
    activation_of,
    is_bare,
    kind_of,
    norm_act,
    norm_add,
    norm_add_act,
    takes_in,
    upsample,
)
from gn_det.fusion.core import FusedModule


class Waiting:
    """`norm(x)`, or `norm(x) + residual`, until it is known what follows.

    It is never given to code that expects a tensor.
    """

    def __init__(
        self, norm: nn.Module, x: Tensor, residual: Tensor | None = None
    ) -> None:
        self.norm = norm
        self.x = x
        self.residual = residual
        self.result: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        """That of the output, which need not be there."""
        return self.x.shape if self.residual is None else now(self).shape

    def taking_in(self, act: Activation | None) -> Tensor:
        """The norm with all that has been found to follow it."""
        if isinstance(self.x, Dry):
            return self.x.note(self, act)
        if self.residual is not None and act is not None:
            return norm_add_act(self.norm, act, self.x, self.residual)
        if self.residual is not None:
            return norm_add(self.norm, self.x, self.residual)
        return self.norm(self.x) if act is None else norm_act(self.norm, act, self.x)


class Dry:
    """In the place of a map: whatever is done with it gives it back."""

    def __init__(self) -> None:
        self.kinds: dict[nn.Module, str] = {}

    def note(self, waiting: Waiting, act: Callable[..., Any] | None) -> Any:
        """Keep what a norm is called with, or why with nothing."""
        add = waiting.residual is not None
        if act is None and not add:
            self.kinds.setdefault(waiting.norm, NOTHING)
        else:
            self.kinds[waiting.norm] = kind_of(act, add=add)
        return self

    @property
    def shape(self) -> tuple[Dry, ...]:
        """Of a map."""
        return (self,) * 4

    @classmethod
    def __torch_function__(
        cls, func: object, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        return next(x for x in tree_leaves((args, kwargs)) if isinstance(x, Dry))

    def __eq__(self, other: object) -> bool:
        return True

    def _itself(self, *args: object, **kwargs: object) -> Any:
        return self

    __hash__ = object.__hash__
    # Not as many times as __getitem__ would let it.
    __iter__ = None
    __getattr__ = __call__ = __getitem__ = _itself
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _itself
    __truediv__ = __rtruediv__ = __floordiv__ = __matmul__ = __pow__ = _itself


class FusedPassing(FusedModule):
    """A module that may hand on what it is given, as dropout does in evaluation."""

    always = True

    @staticmethod
    def passes(module: nn.Module) -> bool:
        """Whether it does so now."""
        rate = module.drop_prob if hasattr(module, 'drop_prob') else module.p
        return not module.training or bool(rate == 0)


def now(value: Any) -> Any:
    """What has waited, computed; anything else as it is."""
    if not isinstance(value, Waiting):
        return value
    if value.result is None:
        value.result = value.taking_in(None)
    return value.result


def call(function: Callable[..., Any], x: Any, /, **settings: Any) -> Any:
    """`function(x, **settings)`, or a norm's output that waits."""
    if isinstance(x, Waiting) and x.result is None:
        # In place or not: nobody else has the norm's output.
        if activation_of(function) and settings.keys() <= {'inplace'}:
            return x.taking_in(function)
        if not settings and _passes(function):
            return x
        if isinstance(x.x, Dry) and _is_named(function):
            x.x.note(x, function)
    x = now(x)
    if function is F.interpolate:
        function = upsample
    if settings or not isinstance(function, nn.Module):
        return function(x, **settings)
    if takes_in(function):
        return Waiting(function, x)
    if isinstance(function, FusedModule) and is_bare(function):
        waits = function.waiting(x)
        if waits is not None:
            return waits
    return x if isinstance(x, Dry) else function(x)


def add(a: Any, b: Any) -> Any:
    """`a + b`, which the norm of one of them may take in."""
    for waits, other in ((a, b), (b, a)):
        if _is_norm(waits):
            # A loop of sums may begin with a number.
            starts = isinstance(other, int) and other == 0
            return waits if starts else Waiting(waits.norm, waits.x, now(other))
    return now(a) + now(b)


def add_to(a: Any, b: Any) -> Any:
    """What `a += b` leaves in a."""
    if _is_norm(a) or _is_norm(b):
        return add(a, b)
    total = now(a)
    total += now(b)
    return total


def add_behind(
    module: nn.Module, x: Tensor, residual: Tensor, act: Activation | None = None
) -> Tensor:
    """`module(x) + residual`, taken in by the norm that a fused module ends in."""
    total = add(call(module, x), residual)
    return now(total if act is None else call(act, total))


def _is_norm(value: object) -> bool:
    if not isinstance(value, Waiting):
        return False
    return value.result is None and value.residual is None


def _passes(function: Callable[..., Any]) -> bool:
    if type(function) is nn.Identity:
        return is_bare(function)
    known = isinstance(function, FusedPassing) and is_bare(function)
    return known and function.passes(function)


def _is_named(function: Callable[..., Any]) -> bool:
    """Whether the report names it as what follows a norm."""
    activation = type(function).__module__ == nn.ReLU.__module__
    return activation or isinstance(function, FusedPassing)

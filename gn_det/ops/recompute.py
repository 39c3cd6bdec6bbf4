"""Recompute normalised activations in backward instead of keeping them.

A convolution keeps its input for its weight gradient. Where that input is the output y
of a norm, it can be had again from the norm's own input x, which the norm keeps in any
case: one more forward pass of the norm, bit for bit the same, and no convolution. So a
network of convolution → norm → ReLU keeps one map per layer where it kept two.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

# A block's output y = act(GN(x) + residual) needs the residual, which is the output of
# the block before: after this many links in a row an output is kept. Six are as many as
# the top-down path of a feature pyramid of four levels has.
_MAX_CHAIN = 6

Function = Callable[[Tensor | None, Tensor | None], Tensor]


class _Unedited:
    """A tensor that has to be, when it is read, what it was when it was kept."""

    __slots__ = ('_version', 'tensor')

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self._version = tensor._version

    def get(self) -> Tensor:
        # Autograd checks this itself, but not where hooks keep tensors for it.
        if self.tensor._version != self._version:
            raise RuntimeError(
                'one of the variables needed for gradient computation has been '
                f'modified by an inplace operation: a tensor of shape '
                f'{list(self.tensor.shape)}, kept by recompute_activations, is at '
                f'version {self.tensor._version}; expected version {self._version}'
            )
        return self.tensor


class _Recipe:
    """How to make y again: a function, its x and its residual or that one's recipe."""

    def __init__(
        self,
        function: Function,
        x: Tensor | None,
        residual: Tensor | _Recipe | None,
        constants: Iterable[Tensor],
    ) -> None:
        self._function = function
        self._constants = [_Unedited(constant.detach()) for constant in constants]
        self._x = None if x is None else _Unedited(x)
        self.before = residual if isinstance(residual, _Recipe) else None
        self._residual = _Unedited(residual) if isinstance(residual, Tensor) else None
        self.length: int = self.before.length + 1 if self.before else 0

    def make(self, before: Tensor | None) -> Tensor:
        """y, given the output of the recipe before it, if there is one."""
        for constant in self._constants:
            constant.get()
        x = self._x.get() if self._x else None
        residual = self._residual.get() if self._residual else before
        with torch.no_grad():
            return self._function(x, residual)

    def inputs(self) -> list[Tensor]:
        """The tensors that this recipe and those before it keep alive."""
        own = [kept.tensor for kept in (self._x, self._residual) if kept]
        return own if self.before is None else own + self.before.inputs()


class _Kept:
    """What autograd holds for a tensor: the tensor, or the recipe it is a view of."""

    __slots__ = ('_itself', 'recipe', 'view')

    def __init__(self, tensor: Tensor, recipe: _Recipe | None) -> None:
        self._itself: _Unedited | None = _Unedited(tensor)
        self.recipe: _Recipe | None = None
        if recipe is not None:
            self.replace(recipe)

    @property
    def tensor(self) -> Tensor | None:
        """The tensor, where it is kept itself."""
        return self._itself.tensor if self._itself else None

    def tensors(self) -> list[Tensor]:
        """What is kept alive: the tensor, or what its recipe reads."""
        return [self._itself.tensor] if self._itself else self.recipe.inputs()

    def get(self) -> Tensor:
        """The tensor that is kept itself, if nobody has edited it."""
        return self._itself.get()

    def replace(self, recipe: _Recipe) -> None:
        """Keep the way to make the tensor instead of the tensor."""
        t = self.tensor
        self.view = (t.size(), t.stride(), t.storage_offset())
        self.recipe = recipe
        self._itself = None


class _Region:
    """One forward pass: which live tensors have a recipe, and what was remade last."""

    def __init__(self) -> None:
        self._recipes: dict[int, tuple[weakref.ref[Tensor], int, _Recipe]] = {}
        self._kept_by_norm: list[_Kept] | None = None
        self._chain: list[tuple[_Recipe, Tensor]] = []
        self._single: tuple[_Recipe, Tensor] | None = None

    def pack(self, tensor: Tensor) -> _Kept:
        kept = _Kept(tensor, self._recipe_of(tensor))
        if self._kept_by_norm is not None:
            self._kept_by_norm.append(kept)
        return kept

    def unpack(self, kept: _Kept) -> Tensor:
        if kept.recipe is None:
            return kept.get()
        y = self._make(kept.recipe)
        size, stride, offset = kept.view
        if y.size() == size and y.stride() == stride:
            return y
        return y.as_strided(size, stride, offset)

    def _make(self, recipe: _Recipe) -> Tensor:
        # Backward asks for a chain from its end to its start, with single ones between,
        # and for a y twice (the convolution behind it, its own ReLU): the last single
        # one is kept, and of a chain what was made on the way until it is passed.
        made = [known for known, _ in self._chain]
        if recipe in made:
            del self._chain[made.index(recipe) + 1 :]
            return self._chain[-1][1]
        if recipe.before is None:
            if self._single is None or self._single[0] is not recipe:
                self._single = None
                self._single = (recipe, recipe.make(None))
            return self._single[1]
        self._chain = []
        line = [recipe]
        while line[-1].before is not None:
            line.append(line[-1].before)
        y = None
        for link in reversed(line):
            y = link.make(y)
            self._chain.append((link, y))
        return y

    def _recipe_of(self, tensor: Tensor) -> _Recipe | None:
        """The recipe of the memory this tensor, view or alias shows, if it has one."""
        entry = self._recipes.get(tensor.untyped_storage()._cdata)
        if entry is None:
            return None
        reference, version, recipe = entry
        y = reference()
        # An edited y is no longer what the norm made.
        if y is None or y._version != version or y.dtype != tensor.dtype:
            return None
        return recipe

    def run(
        self,
        function: Function,
        x: Tensor | None,
        residual: Tensor | None,
        constants: Iterable[Tensor] = (),
    ) -> Tensor:
        """`function(x, residual)`, whose output is remade in backward where it pays.

        `constants` are what the function reads besides; edited meanwhile, they are an
        error.
        """
        self._kept_by_norm = []
        # The function is what it is outside a region.
        state.region = None
        try:
            y = function(x, residual)
            kept_by_norm = self._kept_by_norm
        finally:
            self._kept_by_norm = None
            state.region = self
        if not y.requires_grad:
            return y
        source = None
        if residual is not None:
            source = self._whole(residual) or residual.detach()
        recipe = _Recipe(function, None if x is None else x.detach(), source, constants)
        if recipe.length > _MAX_CHAIN:
            return y
        storage = y.untyped_storage()._cdata
        # The entry ends with y: its memory, and so the number, may then be another's.
        reference = weakref.ref(y, lambda _: self._recipes.pop(storage, None))
        self._recipes[storage] = (reference, y._version, recipe)
        # The norm itself has kept y for the mask of a ReLU behind a residual.
        for kept in kept_by_norm:
            tensor = kept.tensor
            if tensor is not None and tensor.untyped_storage()._cdata == storage:
                kept.replace(recipe)
        return y

    def _whole(self, residual: Tensor) -> _Recipe | None:
        """The recipe of a residual that is another norm's whole output, not a view."""
        recipe = self._recipe_of(residual)
        if recipe is None:
            return None
        y = self._recipes[residual.untyped_storage()._cdata][0]()
        same = y.size() == residual.size() and y.stride() == residual.stride()
        return recipe if same else None

    def close(self) -> None:
        """The forward pass is over: only what backward reads stays alive."""
        self._recipes.clear()


class _State(threading.local):
    region: _Region | None = None


state = _State()


@contextlib.contextmanager
def recompute_activations() -> Iterator[None]:
    """Inside, the outputs of `group_norm` are recomputed in backward, not kept.

    Gradients are the same bits as without. It costs one more forward pass per norm in
    backward, two for some in a chain of residual blocks, and no convolution. An output
    that was edited in place is kept. Regions may nest; in a graph being compiled, where
    the compiler decides what to keep, under `torch.func`'s transforms, which allow no
    hooks, and without gradients it does nothing.

    Raises:
        RuntimeError: in backward, where a kept tensor was edited in place meanwhile.
    """
    if (
        state.region is not None
        or torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or not torch.is_grad_enabled()
    ):
        yield
        return
    region = _Region()
    state.region = region
    try:
        with torch.autograd.graph.saved_tensors_hooks(region.pack, region.unpack):
            yield
    finally:
        state.region = None
        region.close()


def recomputed(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`function(x)`, in a region remade in backward from x, itself remade or kept.

    For what stands between two norms and is cheap, such as an upsampling. `function`
    has to give the same output each time and to return no view of x; autocast is in
    backward what it is here.
    """
    region = state.region
    if region is None:
        return function(x)
    kind = x.device.type
    if not torch.amp.is_autocast_available(kind):
        return region.run(lambda _, x: function(x), None, x)
    dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)

    def again(_: Tensor | None, x: Tensor) -> Tensor:
        with torch.autocast(kind, dtype, enabled=enabled, cache_enabled=False):
            return function(x)

    return region.run(again, None, x)

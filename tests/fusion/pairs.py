"""What follows each Group Norm of a model as it runs, and what fused norms take in."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gn_det.layers import group_norm as layer
from gn_det.ops import group_norm

ACTIVATIONS = ('relu', 'silu')


class _Consumers(TorchDispatchMode):
    """Which operators read what an operator wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.readers: defaultdict[int, list[int]] = defaultdict(list)
        self.sizes: list[list[torch.Size]] = []
        self._writer: dict[int, int] = {}
        # So that no id comes twice.
        self._kept: list[object] = []

    def plus_zero(self, call: int) -> bool:
        """Whether a call adds a number to a map."""
        return self.names[call] == 'add' and len(self.sizes[call]) == 1

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        call = len(self.names)
        name = function.overloadpacket.__name__
        self.names.append(name.rstrip('_'))
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        self.sizes.append([t.shape for t in tensors])
        for tensor in tensors:
            if id(tensor) in self._writer:
                self.readers[self._writer[id(tensor)]].append(call)
        found = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                self._writer[id(tensor)] = call
                self._kept.append(tensor)
        return found


def pairs(run: Callable[[], object]) -> Counter[str]:
    """The kinds of fusion that a run of a stock model leaves room for.

    A norm whose output only an activation reads, or only an addition of maps of the
    same shape, whose sum again may be read by an activation alone. Two norms that are
    added to each other have one addition between them.
    """
    with torch.no_grad(), _Consumers() as seen:
        run()
    found: Counter[str] = Counter()
    additions: set[int] = set()
    for call, name in enumerate(seen.names):
        if name != 'native_group_norm':
            continue
        readers = seen.readers[call]
        # A sum may begin with a zero that is no map.
        while len(readers) == 1 and seen.plus_zero(readers[0]):
            readers = seen.readers[readers[0]]
        if len(readers) != 1:
            continue
        (reader,) = readers
        what = seen.names[reader]
        if what in ACTIVATIONS:
            found[what] += 1
        elif what == 'add' and len(set(seen.sizes[reader])) == 1:
            additions.add(reader)
    for addition in additions:
        behind = [seen.names[reader] for reader in seen.readers[addition]]
        acts = len(behind) == 1 and behind[0] in ACTIVATIONS
        found[f'add_{behind[0]}' if acts else 'add'] += 1
    return found


def taken_in(run: Callable[[], object]) -> Counter[str]:
    """The kinds of fusion that a run of a fused model makes."""
    found: Counter[str] = Counter()

    def counted(*args: object, activation=None, residual=None, **kwargs: object):
        kind = [] if residual is None else ['add']
        kind += [] if activation is None else [activation]
        found['_'.join(kind) or 'plain'] += 1
        return group_norm(*args, activation=activation, residual=residual, **kwargs)

    with mock.patch.object(layer, 'group_norm', counted):
        run()
    del found['plain']
    return found


def norms_of(model: nn.Module) -> list[nn.GroupNorm]:
    """The Group Norms of a model, whoever's."""
    return [m for m in model.modules() if isinstance(m, nn.GroupNorm)]

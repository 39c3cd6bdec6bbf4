"""The registry of blocks that fusion knows, and how a module becomes a fused one.

A fused module is the same object under a subclass of its own class with another
`forward` (`fused_class`): parameters, buffers, hooks, names and `isinstance` stay as
they were. The fused forward is a reading of the stock one, so it takes its place only
where that code is still the one that was read.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from importlib import import_module
from types import CodeType
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeVar

from torch import Tensor, nn

HOSTS = ('torch', 'torchvision', 'timm', 'mmcv', 'mmdet', 'mmpretrain', 'mmseg')
"""The libraries whose blocks are known, one module of `gn_det.fusion.hosts` each."""

KINDS = ('relu', 'silu', 'add', 'add_relu', 'add_silu')
"""What a norm can take in: an activation, an addition, an addition and then one."""

DIGITS = 12
"""Of the SHA-256 of a stock block's code, as `register` takes them."""


if TYPE_CHECKING:

    class _Block(nn.Module):
        """What a fusion is mixed into: any block, whatever its attributes."""

        def __getattr__(self, name: str) -> Any: ...

else:
    _Block = object


class FusedModule(_Block):
    """Mixed in before the stock class whose forward it replaces; see `register`."""

    _prefix = 'Fused'
    """What the subclass's name puts before the stock class's."""

    @staticmethod
    def fused_norms(module: nn.Module) -> Iterator[tuple[nn.Module, str]]:
        """Each Group Norm whose call an instance of the stock class decides on.

        With what is taken in, one of `KINDS`, or why nothing is; `kind_of` says both.
        An instance in which no norm takes anything in stays as it is. It is asked of
        stock and of fused instances; norms of another kind may be among them.
        """
        return iter(())

    always = False
    """Whether every instance is fused, whatever `fused_norms` says of it."""

    @staticmethod
    def last(module: nn.Module) -> nn.Module | None:
        """The child whose output is the module's, so that what follows can be its."""
        return None

    def waiting(self, x: Tensor) -> Any:
        """The output, whose norm may wait for what follows; None if none does."""
        return None

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        # The class is made at run time: copies and pickles name what it is made of.
        if not is_fused_class(type(self)):
            return super().__reduce_ex__(protocol)
        fusions: list[type[FusedModule]] = []
        stock = type(self)
        while is_fused_class(stock):
            fusions.insert(0, stock._fusion)
            stock = stock._stock
        return _new, (stock, *fusions), self.__getstate__()


_Fusion = TypeVar('_Fusion', bound=type[FusedModule])


@dataclass(frozen=True)
class _Entry:
    fusion: type[FusedModule]
    code: frozenset[str | CodeType]
    methods: tuple[str, ...]


_entries: dict[str, _Entry] = {}


def register(
    stock: type[nn.Module] | str,
    *,
    code: Collection[str] = (),
    methods: Collection[str] = ('forward',),
) -> Callable[[_Fusion], _Fusion]:
    """Let `fuse` replace the forward of a block by one that makes fused calls.

    Used as a decorator of a `FusedModule` whose `forward` does what the stock one does,
    by `norm_relu`, `norm_add` and `norm_add_relu`, and whose `fused_norms` says which
    norm takes in what. Classes that inherit the stock forward are fused too; one that
    brings its own is not. Of two registrations of a class the later one holds.

    Args:
        stock: the class that defines the forward; or, so that it need not be imported,
            its module and name (`'mmdet.models.backbones.resnet.Bottleneck'`).
        code: where `stock` is a name, `digest` of the code that was read, one for each
            release that differs. A class given as itself is read as it is now.
        methods: the methods that the fused forward stands for.

    Raises:
        ValueError: if `stock` is a name and no digest is given.
    """
    if isinstance(stock, str):
        if not code:
            raise ValueError(f'{stock}: give the digest of its code, or the class')
        name, known = stock, frozenset(code)
    else:
        name = f'{stock.__module__}.{stock.__qualname__}'
        known = frozenset(_codes(stock, methods))

    def add(fusion: _Fusion) -> _Fusion:
        _entries[name] = _Entry(fusion, known, tuple(methods))
        return fusion

    return add


def fusion_of(cls: type[nn.Module]) -> tuple[type[FusedModule], str | None]:
    """What is registered for a class, and why it may not be used, if so.

    `FusedModule` itself stands for a class that nobody registered.
    """
    owner = next(base for base in cls.__mro__ if 'forward' in vars(base))
    entry = _entries.get(f'{owner.__module__}.{owner.__qualname__}')
    if entry is None:
        return FusedModule, None
    if entry.code.issuperset(_codes(cls, entry.methods)):
        return entry.fusion, None
    if digest(cls, entry.methods) in entry.code:
        return entry.fusion, None
    reason = 'was changed by somebody, or is of a release that is not known here'
    return entry.fusion, f'the forward of {owner.__name__} {reason}'


def methods_of(cls: type[nn.Module]) -> tuple[str, ...]:
    """The methods that the fusion of a class stands for."""
    owner = next(base for base in cls.__mro__ if 'forward' in vars(base))
    return _entries[f'{owner.__module__}.{owner.__qualname__}'].methods


def registered() -> dict[str, tuple[frozenset[str | CodeType], tuple[str, ...]]]:
    """Code and methods of each class that is registered, by its module and name."""
    return {name: (entry.code, entry.methods) for name, entry in _entries.items()}


def digest(cls: type, methods: Collection[str] = ('forward',)) -> str | None:
    """What `register` knows a block's code by: a hash of what its methods do.

    Of their syntax trees, because bytecode differs from one Python to the next, and
    without docstrings, annotations, comments and layout, because releases differ in
    these alone. It is that of the functions which the class really has, so that a
    replaced or wrapped one gives another. None where there is no source.
    """
    trees = [_tree(code) for code in _codes(cls, methods)]
    if None in trees:
        return None
    return hashlib.sha256('\n'.join(trees).encode()).hexdigest()[:DIGITS]


def _codes(cls: type, methods: Collection[str]) -> list[CodeType | None]:
    functions = [inspect.getattr_static(cls, name, None) for name in methods]
    return [getattr(function, '__code__', None) for function in functions]


@functools.cache
def _tree(code: CodeType | None) -> str | None:
    try:
        function = definition(code)
    except (OSError, TypeError, SyntaxError):
        return None
    return repr(_plain(function))


def definition(code: CodeType) -> ast.FunctionDef:
    """The syntax tree of a function, without its docstring."""
    (function,) = ast.parse(textwrap.dedent(inspect.getsource(code))).body
    assert isinstance(function, ast.FunctionDef)
    if ast.get_docstring(function) is not None:
        del function.body[0]
    return function


def _plain(node: object) -> object:
    """A syntax tree as lists of the same form in every Python."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, ast.AST):
        return node
    fields = [
        _plain(value)
        for name, value in ast.iter_fields(node)
        if value not in (None, []) and name not in ('annotation', 'returns')
    ]
    return [type(node).__name__, *fields]


def load_hosts() -> None:
    """Register the blocks of every known library that has been imported."""
    for host in HOSTS:
        if host in sys.modules:
            import_module(f'gn_det.fusion.hosts.{host}')


@functools.cache
def fused_class(fusion: type[FusedModule], stock: type[nn.Module]) -> type:
    """The subclass of `stock` with the forward of `fusion`."""
    attributes = {'__module__': __name__, '_fusion': fusion, '_stock': stock}
    cls = type(f'{fusion._prefix}{stock.__name__}', (fusion, stock), attributes)
    cls._itself = cls
    return cls


def is_fused_class(cls: type) -> bool:
    """Whether `fused_class` made it; one derived from such a class is another's."""
    return '_fusion' in vars(cls)


def _new(cls: type[nn.Module], *fusions: type[FusedModule]) -> nn.Module:
    for fusion in fusions:
        cls = fused_class(fusion, cls)
    return cls.__new__(cls)

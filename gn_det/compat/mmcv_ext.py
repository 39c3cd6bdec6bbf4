"""`mmcv._ext` for an mmcv without compiled operators, on top of torchvision.

mmcv's Python layers reach their operators through the extension module `mmcv._ext`,
which the plain packages (onedl-mmcv, mmcv-lite) do not carry; without it nothing under
`mmcv.ops`, and so no detector of mmdet, can be imported. `install()` offers a module of
that name which holds the operators of `gn_det.compat.operators`. For every other
operator it holds a function that raises `NotImplementedError` when called, so that all
of `mmcv.ops` can be imported.

A compiled mmcv wins: the finder stands last on `sys.meta_path`, hence Python asks it
only after every other finder has found no `mmcv._ext`.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ['install', 'is_substitute']

_MODULE = 'mmcv._ext'
_BUILD_GUIDE = (
    'https://onedl-mmcv.readthedocs.io/en/latest/get_started/installation.html'
)
# Missing operators that have an equivalent elsewhere, by the start of their name.
_EQUIVALENTS = {
    'bbox_overlaps': 'torchvision.ops.box_iou',
    'roi_pool': "type='RoIAlign' in place of 'RoIPool'",
}


def install() -> None:
    """Offer the substitute wherever Python finds no other `mmcv._ext`.

    Imports neither mmcv nor torchvision, and may be called any number of times.
    """
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    sys.meta_path.append(_Finder())
    # onedl-mmdet holds None for what it could not import, in every module of its own.
    masks = sys.modules.get('mmdet.structures.mask.structures')
    if masks is not None and masks.roi_align is None:
        warnings.warn(
            'mmdet was imported before gn_det and did without the operators of mmcv: '
            'its models will fail; import gn_det first',
            stacklevel=2,
        )


def is_substitute() -> bool:
    """Whether `mmcv._ext` is this substitute, or would be if it were imported now.

    Imports mmcv to find out; False where there is no mmcv, where its operators are
    compiled, and before `install()`.
    """
    try:
        spec = importlib.util.find_spec(_MODULE)
    except ModuleNotFoundError:
        return False
    return spec is not None and isinstance(spec.loader, _Loader)


class _Finder(importlib.abc.MetaPathFinder):
    """Answers for `mmcv._ext` alone."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if fullname != _MODULE:
            return None
        return ModuleSpec(fullname, _Loader(), origin=__name__)


class _Loader(importlib.abc.Loader):
    """Fills the module when it is first imported."""

    def exec_module(self, module: ModuleType) -> None:
        # Not at the top: torchvision is not needed where mmcv is compiled.
        from gn_det.compat.operators import OPERATORS

        module.__doc__ = __doc__
        vars(module).update(OPERATORS)
        # The module's own `__getattr__` (PEP 562) answers for the names left.
        module.__getattr__ = _missing_operator


@functools.cache
def _missing_operator(name: str) -> Callable:
    # No operator starts with an underscore, but Python and its tools ask a module for
    # many names that do (`__path__`, `_repr_html_`) and must learn that it has none.
    if name.startswith('_'):
        raise AttributeError(f'module {_MODULE!r} has no attribute {name!r}')
    remedy = f'install an mmcv built with its compiled operators ({_BUILD_GUIDE})'
    for start, equivalent in _EQUIVALENTS.items():
        if name.startswith(start):
            remedy += f', or use {equivalent}'

    def missing(*args: object, **kwargs: object) -> None:
        raise NotImplementedError(
            f'the mmcv operator {name!r}{_who_asks()} is not among those gn_det '
            f'supplies on top of torchvision: {remedy}.'
        )

    missing.__name__ = missing.__qualname__ = name
    return missing


def _who_asks() -> str:
    """The modules whose methods led here, innermost first, by the types of a config."""
    import torch

    modules = []
    frame = inspect.currentframe()
    while frame := frame.f_back:
        module = frame.f_locals.get('self')
        host = type(module).__module__.partition('.')[0]
        if isinstance(module, torch.nn.Module) and host != 'torch':
            modules.append(type(module).__name__)
    # A module has a frame for each of its methods on the way.
    chain = ' of '.join(dict.fromkeys(modules))
    return f' (asked for by {chain})' if chain else ''

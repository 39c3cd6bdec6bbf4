"""A setting that cannot be built, answered as the mistake it is."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import linecache
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.registry.build_functions import build_from_cfg

from gn_det.workbench.errors import UserError

_MISTAKES = (
    AssertionError, AttributeError, ImportError, KeyError, OSError, RuntimeError,
    TypeError, ValueError,
)  # fmt: skip


def type_name(settings: Mapping[str, Any]) -> str:
    """The name of the class that settings are for, without scope or module.

    In new-style configs it is the class itself.
    """
    kind = settings.get('type', '')
    return getattr(kind, '__name__', None) or str(kind).rpartition('.')[2]


def registered(registry: Registry, kind: str | type) -> Any:
    """What `type` in a config names, or None where it names nothing."""
    if not isinstance(kind, str):
        return kind
    # mmengine raises RuntimeError for a dotted name that it cannot import.
    with contextlib.suppress(RuntimeError):
        return registry.get(kind)
    return None


@contextmanager
def name_wrong_settings(cfg: Config) -> Iterator[None]:
    """Name the part of a config that could not be built in the block, and why.

    Errors not raised while an object of the config is built propagate unchanged.

    Raises:
        UserError: instead of what mmengine, torch or the class itself raised.
    """
    try:
        yield
    except _MISTAKES as error:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        building = [f for f in frames if f.f_code is build_from_cfg.__code__]
        if not building:
            raise
        known = building[-1].f_locals
        place = _place(cfg, known['cfg'])
        reason = _unknown_setting(error, known)
        if reason is None:
            reason = f'{place}: {_words(error, frames[-1])}'
        else:
            reason = f'{place}.{reason}'
        raise UserError(f'{reason}; mend {cfg.filename} or --cfg-options') from error


def _place(cfg: Config, part: Mapping[str, Any]) -> str:
    """Where in a config the settings of an object stand.

    mmdet adds to them before it builds, so that those are meant all of which it has;
    if there are none, those of the same type.
    """
    same_type = [
        (place, settings)
        for place, settings in _parts(cfg.to_dict(), '')
        if type_name(settings) == type_name(part)
    ]
    whole = [
        place
        for place, settings in same_type
        if all(key in part and part[key] == value for key, value in settings.items())
    ]
    places = whole or [place for place, _ in same_type]
    return ' or '.join(places) or type_name(part)


def _parts(value: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every set of settings in a config that has a type, and where."""
    if isinstance(value, dict):
        if 'type' in value:
            yield place, value
        for name, item in value.items():
            yield from _parts(item, f'{place}.{name}' if place else name)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _parts(item, f'{place}.{number}')


def _unknown_setting(error: Exception, known: Mapping[str, Any]) -> str | None:
    """A type that is not registered or a key that its class has not, with near ones."""
    if 'obj_cls' not in known or known['obj_cls'] is None:
        name, registry = known.get('obj_type'), known.get('registry')
        if not isinstance(name, str):
            return None
        names = [*registry.module_dict, *(registry.parent or registry).module_dict]
        return (
            f'type: {name} is not in the registry {registry.scope}::{registry.name}'
            f'{near(name, names)}'
        )
    if not isinstance(error, TypeError):
        return None
    built = known['obj_cls']
    names = {
        name
        for base in getattr(built, '__mro__', (built,))
        for name in _parameters(base)
    }
    for key in known['args']:
        if key not in names and repr(key) in str(error):
            name = getattr(built, '__name__', str(built))
            return f'{key}: {name} has no such setting{near(key, names)}'
    return None


def _parameters(kind: Any) -> list[str]:
    try:
        return list(inspect.signature(kind).parameters)
    except (TypeError, ValueError):  # Written in C.
        return []


def near(name: str, names: Iterable[str]) -> str:
    """` (did you mean …?)` with the names that are like one, or nothing."""
    found = difflib.get_close_matches(name, set(names), 3)
    return f' (did you mean {" or ".join(found)}?)' if found else ''


def _words(error: Exception, last: FrameType) -> str:
    """What an error says, or else the line that raised it, and where that is."""
    said = error.args[0] if isinstance(error, KeyError) and error.args else error
    text = ' '.join(str(said).split())
    code = last.f_code
    if not text:
        text = linecache.getline(code.co_filename, last.f_lineno).strip()
    if code is build_from_cfg.__code__:
        return text
    file = '/'.join(Path(code.co_filename).parts[-3:])
    return f'{type(error).__name__} in {file}:{last.f_lineno}: {text}'

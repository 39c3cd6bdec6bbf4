"""Configs in other styles than text: types as classes, JSON. The same as text."""

from __future__ import annotations

from typing import Any

import mmdet.registry
import mmengine.registry
from mmengine.config import Config
from mmengine.registry import Registry

from gn_det.workbench.inputs.building import registered


def name_types(cfg: Config) -> Config:
    """A config whose `type`s are all text, as text configs have them.

    A class is called by its registered name where that means nothing else in the
    config's scope, and else by its module and name, by which mmengine imports it.
    """
    imported = getattr(cfg, '_imported_names', ())
    content = {key: value for key, value in cfg.items() if key not in imported}
    if not _has_classes(content):
        return cfg
    own = content.get('default_scope') == 'mmdet'
    module, scope = (
        (mmdet.registry, 'mmdet') if own else (mmengine.registry, 'mmengine')
    )
    registries = [
        value
        for value in vars(module).values()
        if isinstance(value, Registry) and value.scope == scope
    ]
    return Config(_named(content, registries), cfg_text=cfg.text, filename=cfg.filename)


def restore_tuples(cfg: Config) -> Config:
    """A config of JSON with tuples of numbers, which JSON has as lists.

    mmcv and mmdet take a size or a range only as a tuple, and other numbers either way.
    """
    return Config(_with_tuples(dict(cfg)), cfg_text=cfg.text, filename=cfg.filename)


def _with_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    if value and all(type(item) in (int, float) for item in value):
        return tuple(value)
    return [_with_tuples(item) for item in value]


def _has_classes(value: Any) -> bool:
    if isinstance(value, dict):
        kind = value.get('type')
        named = kind is None or isinstance(kind, str)
        return not named or any(_has_classes(item) for item in value.values())
    return isinstance(value, list | tuple) and any(map(_has_classes, value))


def _named(value: Any, registries: list[Registry]) -> Any:
    if isinstance(value, dict):
        return {
            key: _name(item, registries)
            if key == 'type' and callable(item)
            else _named(item, registries)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(_named(item, registries) for item in value)
    return value


def _name(kind: Any, registries: list[Registry]) -> Any:
    name = getattr(kind, '__qualname__', None)
    if name is None:
        return kind
    meant = {registered(registry, name) for registry in registries} - {None}
    return name if meant == {kind} else f'{kind.__module__}.{name}'

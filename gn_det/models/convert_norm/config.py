"""Group Norm in the place of Batch Norm, in the config of a model."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config

from gn_det.models.convert_norm.kinds import reason_to_keep, shown
from gn_det.models.convert_norm.parts import check_parts, matches
from gn_det.models.convert_norm.report import KeptNorm, NormChange, NormReport

# Entries of a model's config that hold no modules.
_NO_MODULES = ('init_cfg', 'train_cfg', 'test_cfg', 'data_preprocessor')


def convert_cfg(
    model: dict,
    norm: str,
    num_groups: int,
    parts: Sequence[str] | None,
    report: NormReport,
) -> None:
    """Convert the config of a model in place; see `convert_norm`."""
    if not isinstance(model, Mapping):
        raise TypeError(
            f'model: expected the config of a model, got {reprlib.repr(model)}'
        )
    names = [
        str(name)
        for name, value in model.items()
        if isinstance(value, (dict, list)) and name not in _NO_MODULES
    ]
    check_parts(parts, names)
    for path, module, key, value in _norm_cfgs(model, ''):
        place = f'{path}.{key}' if path else key
        if value is None:
            continue
        if not isinstance(value, Mapping):
            report.kept.append(KeptNorm(place, shown(value), 'not a dict'))
            continue
        before = shown(value.get('type'))
        if reason := reason_to_keep(value.get('type')):
            report.kept.append(KeptNorm(place, before, reason))
        elif not matches(place.split('.')[0], parts):
            report.kept.append(KeptNorm(place, before, 'of a part not chosen'))
        else:
            implicit = '' if key in module else ' (default)'
            same = {k: value[k] for k in ('requires_grad', 'eps') if k in value}
            module[key] = dict(type=norm, num_groups=num_groups, **same)
            report.changed.append(
                NormChange(place, f'{before}{implicit}', f'{norm}({num_groups} groups)')
            )
            if value.get('requires_grad') is False:
                report.notes.append(
                    f'{place} has requires_grad=False as before; Group Norm has to be '
                    'trained'
                )
    changed = {change.place.rpartition('.')[0] for change in report.changed}
    for path, module in _modules(model, ''):
        if not any(place == path or place.startswith(f'{path}.') for place in changed):
            continue
        prefix = f'{path}.' if path else ''
        init = module.get('init_cfg')
        if isinstance(init, Mapping) and init.get('type') == 'Pretrained':
            report.notes.append(
                f'{prefix}init_cfg loads {init.get("checkpoint")}: if that has Batch '
                'Norm, convert it with gn-det convert --norm gn and name the result '
                'there'
            )
        frozen = module.get('frozen_stages', -1)
        if isinstance(frozen, int) and frozen >= 0:
            report.notes.append(
                f'{prefix}frozen_stages={frozen} freezes Group Norms too; set it to -1 '
                'unless the weights come from a model with Group Norm'
            )


def _norm_cfgs(
    node: dict | list, path: str
) -> Iterator[tuple[str, dict, str, Mapping | None]]:
    """Path, module, key and value of each `…norm_cfg`, written down or by default."""
    if isinstance(node, Mapping):
        # As they were given: who takes a default from here writes it into the node.
        entries = list(node.items())
        if isinstance(node.get('type'), (str, type)):
            defaults = _default_norm_cfgs(node['type'])
            for key, default in defaults.items():
                if key not in node:
                    yield path, node, key, default
        for key, value in entries:
            if isinstance(key, str) and key.endswith('norm_cfg'):
                yield path, node, key, value
            elif key not in _NO_MODULES and isinstance(value, (dict, list, tuple)):
                yield from _norm_cfgs(value, f'{path}.{key}' if path else f'{key}')
    else:
        for i, item in enumerate(node):
            if isinstance(item, (dict, list, tuple)):
                yield from _norm_cfgs(item, f'{path}.{i}')


def _default_norm_cfgs(kind: str | type) -> dict[str, Mapping]:
    """What a module takes for a `norm_cfg` its config does not mention."""
    import mmdet.models  # noqa: F401  (fills the registry)
    from mmdet.registry import MODELS

    cls = kind if isinstance(kind, type) else MODELS.get(kind)
    defaults: dict[str, Any] = {}
    for base in inspect.getmro(cls) if isinstance(cls, type) else ():
        if '__init__' not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        for parameter in parameters:
            if parameter.name.endswith('norm_cfg'):
                defaults.setdefault(parameter.name, parameter.default)
        # What a class does not pass on cannot reach its base.
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return {key: value for key, value in defaults.items() if isinstance(value, Mapping)}


def _modules(node: Any, path: str) -> Iterator[tuple[str, Mapping]]:
    """Path and config of each module."""
    if isinstance(node, Mapping):
        yield path, node
        for key, value in node.items():
            if key not in _NO_MODULES:
                yield from _modules(value, f'{path}.{key}' if path else f'{key}')
    elif isinstance(node, (list, tuple)):
        for i, item in enumerate(node):
            yield from _modules(item, f'{path}.{i}')


def import_plugin(cfg: Config | dict) -> None:
    """Let a whole config import the package that registers the norm.

    Raises:
        TypeError: if its `custom_imports` are none that mmengine would import.
    """
    imports = cfg.get('custom_imports') or {}
    given = imports.get('imports') if isinstance(imports, Mapping) else imports
    names = [given] if isinstance(given, str) else given or []
    if not (
        isinstance(imports, Mapping)
        and isinstance(names, (list, tuple))
        and all(isinstance(name, str) for name in names)
    ):
        raise TypeError(
            f"custom_imports: expected dict(imports=['name', …]), got {given!r}"
        )
    if not any(name.split('.')[0] == 'gn_det' for name in names):
        cfg['custom_imports'] = {
            'allow_failed_imports': False,
            **imports,
            'imports': [*names, 'gn_det'],
        }

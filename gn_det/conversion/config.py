"""Group Norm in the place of Batch Norm, and fusion, by the config of a model."""

from __future__ import annotations

import copy
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import nn

from gn_det.conversion.builder import without_process_group
from gn_det.conversion.model import convert_model
from gn_det.conversion.pretrained import (
    checkpoints_of,
    instead,
    is_public,
    says_group_norm,
)
from gn_det.conversion.report import NormReport

BUILDER = 'GroupNormModel'
_OF_BUILDER = ('of', 'norm', 'fuse', 'recompute')
# Entries of a model's config that hold no modules.
_NO_MODULES = ('init_cfg', 'train_cfg', 'test_cfg', 'data_preprocessor')
# Weights of teachers are loaded while the model is built.
_TEACHERS_WEIGHTS = 'teacher_ckpt'


def convert_cfg(
    cfg: Any,
    norm: str,
    num_groups: int | None,
    parts: Sequence[str] | None,
    report: NormReport,
) -> None:
    """Convert a config in place; see `convert_norm`."""
    settings, scope = _model_of(cfg)
    model = _built(settings, scope)
    convert_model(model, norm, num_groups, parts, report)
    if not report.changed:
        return
    _drop_what_was_for_batch_norm(
        settings, model, report, '' if settings is cfg else 'model.'
    )
    arguments: dict[str, Any] = dict(type=norm)
    if num_groups is not None:
        arguments['num_groups'] = num_groups
    if parts is not None:
        arguments['parts'] = list(parts)
    _wrap(settings, norm=arguments)
    # Before its norms are converted such a detector has little to fuse.
    if any(base.__name__ == 'FusedDetector' for base in type(model).__mro__):
        settings['fuse'] = True
    if settings is not cfg:
        import_plugin(cfg)
        loaded = cfg.get('load_from')
        if loaded and is_public(loaded) and not says_group_norm(loaded):
            cfg['load_from'] = None
            report.notes.append(
                f'load_from: {loaded} does not fit Group Norm and is left out'
            )


def fuse_cfg(cfg: Any) -> int:
    """Let the model of a config be fused when it is built.

    Returns:
        How many Group Norms it has; without any the config stays as it is.
    """
    settings, scope = _model_of(cfg)
    model = _built(settings, scope)
    if settings.get('norm') is not None:
        convert_model(model, 'GN', None, None, NormReport())
    count = sum(isinstance(module, nn.GroupNorm) for module in model.modules())
    if count:
        _wrap(settings, fuse=True)
        if settings is not cfg:
            import_plugin(cfg)
    return count


def _model_of(cfg: Any) -> tuple[Any, str | None]:
    """The settings of the model, and the scope in which their types are meant."""
    whole = 'model' in cfg and 'type' not in cfg
    if not whole and not isinstance(cfg, Mapping):
        raise ValueError('the config has no model; give that of a model as a dict')
    settings = cfg['model'] if whole else cfg
    if not isinstance(settings, Mapping) or 'type' not in settings:
        raise TypeError(
            f'model: expected the config of a model, got {reprlib.repr(settings)}'
        )
    return settings, cfg.get('default_scope') if whole else None


def _built(settings: Any, scope: str | None) -> nn.Module:
    """The stock model, to look at its norms; without memory where it goes so."""

    def build() -> nn.Module:
        given = without_process_group(copy.deepcopy(settings))
        if given['type'] == BUILDER:
            given['type'] = given['of']
            for key in _OF_BUILDER:
                given.pop(key, None)
        if _TEACHERS_WEIGHTS in given:
            given[_TEACHERS_WEIGHTS] = None
        return registry.build(given)

    with MODELS.switch_scope_and_registry(scope) as registry:
        try:
            with torch.device('meta'):
                return build()
        # Some read numbers from tensors as they are built, which such have not. What is
        # wrong with the settings is said by the second attempt.
        except Exception:
            return build()


def _wrap(settings: Any, **arguments: Any) -> None:
    """Name the builder as the type of a model, and what it shall do."""
    if settings['type'] != BUILDER:
        settings['of'], settings['type'] = settings['type'], BUILDER
    settings.update(arguments)


def _drop_what_was_for_batch_norm(
    settings: Any, model: nn.Module, report: NormReport, start: str
) -> None:
    """Weights that hold Batch Norm, and what is not trained because of them."""
    affected = _affected(model, report)
    kinds = {type(module).__name__: module for module in affected.values()}
    names = {name for name, _ in model.named_modules()}
    for path, node in _modules(settings, ''):
        kind = getattr(node.get('type'), '__name__', None) or str(node.get('type'))
        # A part may stand elsewhere in the model than in the config.
        moved = kinds.get(kind.rpartition('.')[2]) if path not in names else None
        module = affected.get(path, moved)
        if module is None:
            continue
        place = f'{start}{path}.' if path else start
        dropped = _drop_weights(node, place, module, report)
        frozen = node.get('frozen_stages')
        if dropped and isinstance(frozen, int) and frozen >= 0:
            # The number that means none differs; it is every class's default.
            del node['frozen_stages']
            report.notes.append(
                f'{place}frozen_stages={frozen} is left out: without their weights '
                'these stages have to be trained'
            )
        if node.get('norm_eval'):
            node['norm_eval'] = False
            report.notes.append(
                f'{place}norm_eval is False now: Group Norm is the same in training '
                'and evaluation'
            )


def _drop_weights(node: Any, place: str, module: nn.Module, report: NormReport) -> bool:
    """Take out the weights of a part that hold Batch Norm; whether there were any."""
    dropped = False
    for key in ('init_cfg', 'pretrained'):
        value = node.get(key)
        found = [value] if isinstance(value, str) else list(checkpoints_of(value))
        for checkpoint in found:
            if says_group_norm(checkpoint):
                continue
            if is_public(checkpoint):
                node[key], dropped = None, True
                report.notes.append(
                    f'{place}{key}: {checkpoint} does not fit Group Norm and is left '
                    f'out; {instead(module)}'
                )
            else:
                report.notes.append(
                    f'{place}{key} loads {checkpoint}: if that has Batch Norm, '
                    'convert it with gn-det convert --norm gn and name the result there'
                )
    return dropped


def _affected(model: nn.Module, report: NormReport) -> dict[str, nn.Module]:
    """The modules around norms that were replaced, by name."""
    names = set()
    for change in report.changed:
        place = change.place
        while place:
            place = place.rpartition('.')[0]
            names.add(place)
    return {name: part for name, part in model.named_modules() if name in names}


def _modules(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Path and settings of each module, but of no teacher."""
    if isinstance(node, Mapping):
        yield path, node
        for key, value in list(node.items()):
            if key not in _NO_MODULES and not str(key).startswith('teacher_'):
                yield from _modules(value, f'{path}.{key}' if path else f'{key}')
    elif isinstance(node, (list, tuple)):
        for i, item in enumerate(node):
            yield from _modules(item, f'{path}.{i}')


def import_plugin(cfg: Any) -> None:
    """Let a whole config import the package that registers the builder.

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

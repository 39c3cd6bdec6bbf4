"""What is in a checkpoint, and where it comes from (`gn-det info CHECKPOINT`)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.checkpoints import load_state_dict
from gn_det.workbench.loading import loader
from gn_det.workbench.loading.digests import file_digest
from gn_det.workbench.loading.dumped_config import parse_config
from gn_det.workbench.loading.weights import meta_of

Rows = Iterator[tuple[str, str]]

SUFFIXES = ('.pkl', '.pt', '.pth', '.safetensors')
_SHOWN_CLASSES = 8
# Of a run, and what `gn-det convert` notes.
_RUN = ('epoch', 'iter', 'seed', 'time', 'mmengine_version', 'experiment_name')


def checkpoint_rows(path: str) -> Rows:
    """What there is to say of a checkpoint file, as names and texts; nothing is run.

    Raises:
        UserError: if it is not there, damaged, or no checkpoint.
    """
    state = load_state_dict(path)
    content = loader.peek(path)
    try:
        meta = meta_of(content)
    except UserError as error:
        raise UserError(f'{path} {error}') from error
    yield 'file', f'{path}, {os.path.getsize(path) / 2**20:.1f} MiB'
    yield 'sha256', file_digest(path)
    parts: Counter[str] = Counter()
    for name, tensor in state.items():
        parts[name.partition('.')[0]] += tensor.numel()
    listed = ', '.join(f'{part} {count / 1e6:.1f}' for part, count in parts.items())
    yield (
        'weights',
        f'{len(state)} tensors, {sum(parts.values()) / 1e6:.1f} M numbers ({listed})',
    )
    beside = [key for key in content if key not in ('state_dict', 'meta')]
    if 'state_dict' in content and beside:
        yield 'beside them', f'{", ".join(beside)}; gn-det publish leaves them out'
    if not meta:
        yield 'provenance', 'unknown: the weights stand alone'
        return
    yield from _meta_rows(meta)


def _meta_rows(meta: Mapping[str, Any]) -> Rows:
    named = meta.get('dataset_meta')
    named = named if isinstance(named, Mapping) else {}
    classes = named.get('classes') or named.get('CLASSES') or meta.get('CLASSES')
    if isinstance(classes, list | tuple) and classes:
        more = ', …' if len(classes) > _SHOWN_CLASSES else ''
        listed = ', '.join(map(str, classes[:_SHOWN_CLASSES]))
        yield 'classes', f'{len(classes)}: {listed}{more}'
    run = [f'{key} {meta[key]}' for key in _RUN if meta.get(key) is not None]
    if run:
        yield 'run', ', '.join(run)
    own = meta.get('gn_det')
    if isinstance(own, Mapping):
        told = [f'{k} {v}' for k, v in own.items() if isinstance(v, str | int | float)]
        yield 'gn_det', ', '.join(told)
    yield from _config_rows(meta.get('cfg'))


def _config_rows(text: Any) -> Rows:
    if not isinstance(text, str) or not text:
        return
    try:
        settings = parse_config(text)
    except ValueError:
        yield 'config', 'one that cannot be read as data'
        return
    model = settings.get('model')
    if not isinstance(model, Mapping):
        return
    backbone = model.get('backbone')
    backbone = backbone if isinstance(backbone, Mapping) else {}
    norms = dict.fromkeys(_norm_types(model))
    yield (
        'config',
        f'{model.get("type")} on {backbone.get("type")}-{backbone.get("depth", "")}, '
        f'norms {", ".join(norms) or "none"}',
    )
    if settings.get('load_from'):
        yield 'started from', str(settings['load_from'])


def _norm_types(part: Any) -> Iterator[str]:
    if isinstance(part, Mapping):
        norm = part.get('norm_cfg')
        if isinstance(norm, Mapping):
            yield str(norm.get('type'))
        for item in part.values():
            yield from _norm_types(item)
    elif isinstance(part, list | tuple):
        for item in part:
            yield from _norm_types(item)

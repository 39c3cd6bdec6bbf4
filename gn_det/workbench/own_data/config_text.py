"""The text of a config: what is its own, on a base that has the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.heads import class_heads

_WIDTH = 88
# mmdet has colours for as many.
_MOST_COLORS = 80


@dataclass(frozen=True)
class SplitText:
    """A split's paths as the config has them: within `data_root` or whole."""

    ann_file: str
    images: str


def config_text(
    base: Config,
    base_name: str,
    title: str,
    data_root: str,
    classes: Sequence[str],
    splits: Mapping[str, SplitText],
    schedule: Sequence[str],
    load_from: str | None,
) -> str:
    """The whole text.

    Args:
        base: the config of `base_name`, to be written over.
        base_name: as it stands in `_base_`.
        title: of the first line, a comment.
        data_root: ends in a slash.
        classes: in the order of the labels.
        splits: `'train'` and `'val'`, perhaps `'test'`.
        schedule: of `schedule_lines`.
        load_from: what the training starts from.

    Raises:
        UserError: if the base has several training sets.
    """
    palette = ", palette='random'" if len(classes) > _MOST_COLORS else ''
    lines = [
        f'# {title}',
        f'_base_ = {base_name!r}',
        *([f'load_from = {load_from!r}'] if load_from else []),
        '',
        f'data_root = {data_root!r}',
        *_tuple('classes', classes),
        f'metainfo = dict(classes=classes{palette})',
    ]
    endless = 'max_iters' in base.train_cfg
    sampler = "sampler=dict(type='DefaultSampler', shuffle=True)" if endless else ''
    for split in ('train', 'val', 'test'):
        if split in splits:
            more = sampler if split == 'train' else ''
            lines += _loader(base, split, splits[split], more)
    for split in ('val', 'test'):
        if split in splits:
            lines.append(f'{split}_evaluator = dict({_full(splits[split].ann_file)})')
    if 'test' not in splits:
        lines.append('test_dataloader = val_dataloader')
        lines.append('test_evaluator = val_evaluator')
    lines += ['', *schedule, '', *_heads(base)]
    return '\n'.join(lines) + '\n'


def is_whole(path: str) -> bool:
    """Whether a path stands by itself, without `data_root` before it."""
    return path.startswith(('/', '{{'))


def _full(ann_file: str) -> str:
    root = '' if is_whole(ann_file) else 'data_root + '
    return f'ann_file={root}{ann_file!r}'


def _loader(base: Config, split: str, paths: SplitText, more: str) -> list[str]:
    dataset = base[f'{split}_dataloader'].dataset
    depth = 1
    while 'dataset' in dataset:
        dataset = dataset.dataset
        depth += 1
    if 'datasets' in dataset:
        raise UserError(
            f'{base.filename} has several sets in {split}_dataloader; name another '
            'config with --base'
        )
    items = [
        'data_root=data_root',
        'metainfo=metainfo',
        f'ann_file={paths.ann_file!r}',
        f'data_prefix=dict(img={paths.images!r})',
    ]
    lines = [f'{split}_dataloader = dict(']
    if more:
        lines.append(f'    {more},')
    lines += ['    ' * level + 'dataset=dict(' for level in range(1, depth + 1)]
    lines += ['    ' * (depth + 1) + f'{item},' for item in items]
    lines += ['    ' * level + '),' for level in range(depth, 0, -1)]
    return [*lines, ')']


def _heads(base: Config) -> list[str]:
    """`num_classes` of every head; the heads of a cascade are a list in the base."""
    tree: dict[str, Any] = {}
    for place, _ in class_heads(base.get('model'), 'model'):
        part = tree
        for name in place.split('.'):
            if name.isdigit():
                part['[]'] = True
                break
            part = part.setdefault(name, {})
        else:
            part['num_classes'] = {}
    if not tree:
        raise UserError(f'{base.filename} has no head with classes; give another base')
    return ['num_classes = len(classes)', *_nested('model', tree['model'], '', 'model')]


def _nested(name: str, part: dict[str, Any], indent: str, place: str) -> list[str]:
    sign = ' = ' if not indent else '='
    end = '' if not indent else ','
    if '[]' in part:
        return [
            f'{indent}{name}=[',
            f'{indent}    dict(head, num_classes=num_classes)',
            f'{indent}    for head in _base_.{place}',
            f'{indent}],',
        ]
    if not part:
        return [f'{indent}{name}={name},']
    inner = [
        line
        for key, item in part.items()
        for line in _nested(key, item, f'{indent}    ', f'{place}.{key}')
    ]
    if len(inner) == 1:
        return [f'{indent}{name}{sign}dict({inner[0].strip(" ,")}){end}']
    return [f'{indent}{name}{sign}dict(', *inner, f'{indent}){end}']


def _tuple(name: str, values: Sequence[str]) -> list[str]:
    """As many to a line as fit."""
    whole = f'{name} = {tuple(values)!r}'
    if len(whole) <= _WIDTH:
        return [whole]
    lines, line = [f'{name} = ('], '   '
    for value in values:
        item = f' {value!r},'
        if len(line) + len(item) > _WIDTH and line.strip():
            lines.append(line)
            line = '   '
        line += item
    return [*lines, line, ')']

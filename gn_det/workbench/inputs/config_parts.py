"""Parts of a config that may be given in several ways, each in one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config, ConfigDict


def evaluators(cfg: Config, split: str) -> list[ConfigDict]:
    """The evaluators of `'val'` or `'test'`: none, one or a list in a config."""
    found = cfg.get(f'{split}_evaluator') or []
    return list(found) if isinstance(found, list | tuple) else [found]


def leaf_datasets(dataset: ConfigDict) -> list[ConfigDict]:
    """The datasets inside wrappers (RepeatDataset, ConcatDataset, …)."""
    if 'dataset' in dataset:
        return leaf_datasets(dataset['dataset'])
    if 'datasets' in dataset:
        return [leaf for inner in dataset['datasets'] for leaf in leaf_datasets(inner)]
    return [dataset]


def flat(value: Any, key: str = '') -> Iterator[tuple[str, str]]:
    """Dotted keys and values; the values as text, in which (1,) and [1] are the same.

    An empty part has no key.
    """
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        yield key, repr(value)
        return
    for name, item in items:
        yield from flat(item, f'{key}.{name}' if key else str(name))

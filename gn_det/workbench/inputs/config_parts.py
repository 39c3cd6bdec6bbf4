"""Parts of a config that may be given in several ways, each in one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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


def differences(
    cfg: Config, earlier: Mapping[str, Any], parts: Sequence[str]
) -> list[str]:
    """Where settings are not as they were, such as `optim_wrapper.lr: 0.02, was 0.01`.

    Args:
        cfg: as it is now.
        earlier: as a dump of it had them, in which classes are names.
        parts: the settings at the top to compare.
    """
    now, then = (
        dict(flat({part: settings.get(part) for part in parts}))
        for settings in (cfg, earlier)
    )
    absent = repr(None)
    return [
        f'{key}: {now.get(key, absent)}, was {then.get(key, absent)}'
        for key in dict.fromkeys((*now, *then))
        if now.get(key, absent) != then.get(key, absent)
        and not now.get(key, absent).startswith('<class')
    ]

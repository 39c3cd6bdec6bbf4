"""Backbone, neck and heads: which children of a model are converted."""

from __future__ import annotations

from collections.abc import Sequence


def matches(name: str, parts: Sequence[str] | None) -> bool:
    """Whether a child of a model belongs to the parts to convert."""
    if parts is None:
        return True
    return name in parts or ('head' in parts and name.endswith('head'))


def check_parts(parts: Sequence[str] | None, names: Sequence[str]) -> None:
    """See that each part is there.

    Raises:
        ValueError: naming the one that is not, and those that are.
    """
    for part in parts or ():
        if not any(matches(name, (part,)) for name in names):
            raise ValueError(
                f'there is no part {part!r}; the parts here are {", ".join(names)}'
            )

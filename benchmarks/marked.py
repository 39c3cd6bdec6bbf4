"""Pages whose tables come from files: what stands between two marks is written anew."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path


def table(columns: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table as Markdown has them."""
    lines = [columns, ['---'] * len(columns), *rows]
    return '\n'.join(f'| {" | ".join(map(str, cells))} |' for cells in lines)


def write(page: Path, parts: Mapping[str, str], check: bool = False) -> int:
    """Put each part between `<!-- NAME: … -->` and `<!-- end of NAME -->` of a page.

    Returns:
        0, or 1 where `check` asked only whether the page differs, and it does.
    """
    old = new = page.read_text(encoding='utf-8')
    for name, lines in parts.items():
        pattern = re.compile(
            f'(<!-- {name}: [^\n]*-->\n).*?(<!-- end of {name} -->)', re.S
        )
        new, count = pattern.subn(rf'\g<1>{_escaped(lines)}\n\g<2>', new)
        if count != 1:
            raise SystemExit(f'error: {page.name}: expected the marks of {name} once')
    if check:
        return int(new != old)
    page.write_text(new, encoding='utf-8')
    return 0


def _escaped(lines: str) -> str:
    return lines.replace('\\', r'\\')

"""What the replacing of norms changed, and which norms stayed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class NormChange:
    """One norm that was replaced: where, what it was and is, and in how many groups."""

    place: str
    before: str
    after: str
    groups: int


@dataclass(frozen=True)
class KeptNorm:
    """A norm that stayed as it was, and why."""

    place: str
    norm: str
    reason: str


@dataclass
class NormReport:
    """What `convert_norm` changed and what it did not; `str` of it is a table."""

    changed: list[NormChange] = field(default_factory=list)
    kept: list[KeptNorm] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        rows = [(c.place, c.before, f'→ {c.after}') for c in self.changed]
        rows += [(k.place, k.norm, f'kept: {k.reason}') for k in self.kept]
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(2)]
        lines = [self.summary()]
        lines += [
            f'{place:{widths[0]}}  {before:{widths[1]}}  {rest}'
            for place, before, rest in rows
        ]
        return '\n'.join(lines + [f'note: {note}' for note in self.notes])

    def summary(self) -> str:
        """One line: how many norms of which parts, in how many groups, and the rest."""
        parts = _counted(c.place.partition('.')[0] for c in self.changed)
        groups = _counted(f'{c.groups} groups' for c in self.changed)
        kept = _counted(f'{k.norm} ({k.reason})' for k in self.kept)
        line = f'{len(self.changed) or "no"} Batch Norms became Group Norm'
        line += f' ({parts}; {groups})' if self.changed else ''
        return line + (f'; kept: {kept}' if self.kept else '')


def _counted(names: Iterable[str]) -> str:
    counts = Counter(names).most_common()
    return ', '.join(f'{count} × {name}'.rstrip(' ×') for name, count in counts)

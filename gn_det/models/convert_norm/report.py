"""What the replacing of norms changed, and which norms stayed."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class NormChange:
    """One norm (of a model) or one `norm_cfg` (of a config) that was replaced."""

    place: str
    before: str
    after: str


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
        lines = [f'{len(self.changed)} changed, {len(self.kept)} kept']
        rows = [(c.place, c.before, f'→ {c.after}') for c in self.changed]
        rows += [(k.place, k.norm, f'kept: {k.reason}') for k in self.kept]
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(2)]
        lines += [
            f'{place:{widths[0]}}  {before:{widths[1]}}  {rest}'
            for place, before, rest in rows
        ]
        return '\n'.join(lines + [f'note: {note}' for note in self.notes])

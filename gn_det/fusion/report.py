"""What `fuse` did to a model, norm by norm."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from gn_det.fusion.core import KINDS

_WORDS = {
    'relu': 'ReLU',
    'silu': 'SiLU',
    'add': 'addition',
    'add_relu': 'addition and ReLU',
    'add_silu': 'addition and SiLU',
}


@dataclass(frozen=True)
class FusionReport:
    """The Group Norm layers of a model by what happens to them, each by module name."""

    relu: list[str] = field(default_factory=list)
    """y = relu(GN(x)) in one operation."""

    silu: list[str] = field(default_factory=list)
    """y = silu(GN(x)) in one operation."""

    add: list[str] = field(default_factory=list)
    """y = GN(x) + residual in one operation."""

    add_relu: list[str] = field(default_factory=list)
    """y = relu(GN(x) + residual) in one operation."""

    add_silu: list[str] = field(default_factory=list)
    """y = silu(GN(x) + residual) in one operation."""

    plain: dict[str, str] = field(default_factory=dict)
    """y = GN(x) by the project's operation, with the reason why nothing is taken in."""

    untouched: dict[str, str] = field(default_factory=dict)
    """Left as they were, with the reason."""

    outside: dict[str, int] = field(default_factory=dict)
    """Models that a module holds without owning them (a teacher), and their norms.

    They are in nobody's `modules()`, so they are as they were: fuse each by itself.
    """

    def __len__(self) -> int:
        fused = (getattr(self, kind) for kind in KINDS)
        return sum(map(len, (*fused, self.plain, self.untouched)))

    def __str__(self) -> str:
        counts = {_WORDS[kind]: len(getattr(self, kind)) for kind in KINDS}
        fused = ''.join(f'{n} with {word}, ' for word, n in counts.items() if n)
        lines = [
            f'{len(self)} Group Norm layers: {fused}{len(self.plain)} plain, '
            f'{len(self.untouched)} left as they were'
        ]
        for what, reasons in (
            ('plain', self.plain),
            ('left as they were', self.untouched),
        ):
            for reason, count in Counter(reasons.values()).most_common():
                first = next(name for name in reasons if reasons[name] == reason)
                lines.append(f'  {count} {what}: {reason} ({first})')
        for name, count in self.outside.items():
            lines.append(
                f'  {name} is held, not owned, and was not touched; it has {count} '
                f'Group Norm layers: gn_det.fuse(model.{name})'
            )
        return '\n'.join(lines)

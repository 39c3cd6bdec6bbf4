"""What `fuse` did to a model, norm by norm."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

FUSED_KINDS = ('relu', 'add', 'add_relu')


@dataclass(frozen=True)
class FusionReport:
    """The Group Norm layers of a model by what happens to them, each by module name."""

    relu: list[str] = field(default_factory=list)
    """y = relu(GN(x)) in one operation."""

    add: list[str] = field(default_factory=list)
    """y = GN(x) + residual in one operation."""

    add_relu: list[str] = field(default_factory=list)
    """y = relu(GN(x) + residual) in one operation."""

    plain: dict[str, str] = field(default_factory=dict)
    """y = GN(x) by `FusedGroupNorm`, with the reason why nothing more is taken in."""

    untouched: dict[str, str] = field(default_factory=dict)
    """Left as they were, with the reason."""

    def __len__(self) -> int:
        fused = (getattr(self, kind) for kind in FUSED_KINDS)
        return sum(map(len, (*fused, self.plain, self.untouched)))

    def __str__(self) -> str:
        lines = [
            f'{len(self)} Group Norm layers: {len(self.relu)} with ReLU, '
            f'{len(self.add)} with addition, {len(self.add_relu)} with addition and '
            f'ReLU, {len(self.plain)} plain, {len(self.untouched)} left as they were'
        ]
        for what, reasons in (
            ('plain', self.plain),
            ('left as they were', self.untouched),
        ):
            for reason, count in Counter(reasons.values()).items():
                first = next(name for name in reasons if reasons[name] == reason)
                lines.append(f'  {count} {what}: {reason} ({first})')
        return '\n'.join(lines)

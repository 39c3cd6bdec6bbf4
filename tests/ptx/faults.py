"""Faults to plant in PTX."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# What is found, what takes its place, and whether at each place by itself. Else at all
# of a kernel: a predicate may be true, or a bound be missed, in every thread there is.
FAULTS = {
    'barrier removed': (r'\tbar\.sync[ \t]+0;\n', '\n', True),
    'load shifted': (r'(ld\.global.*\+) 0 \]', r'\1 16 ]', False),
    'store shifted': (r'(st\.global.*\+) 0 \]', r'\1 16 ]', False),
    'shared store shifted': (r'(st\.shared.*\[%r\d+)\]', r'\1+16]', True),
    'load without its predicate': (r'@!?%p\d+ (ld\.global)', r'\1', False),
    'store without its predicate': (r'@!?%p\d+ (st\.global)', r'\1', False),
    'mask one too wide': (r'setp\.lt\.s32', 'setp.le.s32', False),
    'shuffle with itself': (
        r'(shfl\.sync\.bfly\.b32[^;]*, )(?:16|8|4|2|1), 31',
        r'\g<1>0, 31',
        False,
    ),
}


def kernel_name(ptx: str) -> str:
    """The kernel of a module."""
    return re.search(r'\.entry (\w+)\(', ptx)[1]


@dataclass(frozen=True)
class Plant:
    """Puts a fault at one place of one kernel, or at all (None); others stay."""

    kernel: str
    fault: str
    place: int | None = None

    @classmethod
    def each(cls, ptx: str, fault: str) -> Iterator[Plant]:
        """The ways to plant a fault in a kernel."""
        pattern, _, single = FAULTS[fault]
        places = len(re.findall(pattern, ptx))
        for place in range(places) if single else [None] * bool(places):
            yield cls(kernel_name(ptx), fault, place)

    def __call__(self, ptx: str) -> str:
        if kernel_name(ptx) != self.kernel:
            return ptx
        pattern, replacement, _ = FAULTS[self.fault]
        found = enumerate(re.finditer(pattern, ptx))
        for i, match in reversed(list(found)):
            if self.place in (None, i):
                changed = match.expand(replacement)
                ptx = ptx[: match.start()] + changed + ptx[match.end() :]
        return ptx

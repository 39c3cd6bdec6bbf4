"""Cases of the op for the emulator; run where Triton compiles."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from unittest import mock

import torch
from torch import Tensor

from gn_det.ops import triton_launch
from tests.ops.cases import (
    KINDS,
    LAYOUTS,
    LIMITS,
    Case,
    assert_accurate,
    make_case,
    run,
)
from tests.ptx.emulated_ops import EmulatedOps
from tests.ptx.faults import Plant, kernel_name
from tests.ptx.memory import Fault
from tests.ptx.parse import Unsupported

DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
ARCHS = (90, 80)
# Shape and groups: channels a group that are and are not a power of two, widths that
# are and are not, one group in several pieces, rows without 16-byte accesses.
SHAPES = (
    ((2, 24, 9, 14), 4),
    ((1, 32, 13, 21), 8),
    ((3, 40, 10, 12), 2),
    ((2, 64, 7, 8), 32),
    ((1, 136, 4, 10), 1),
)


@dataclass(frozen=True)
class Combination:
    """One case: where it runs, which kernels serve it and what it computes."""

    arch: int
    aligned: bool
    dtype: str
    layout: str
    regime: str
    kind: str
    shape: tuple[int, ...]
    groups: int
    weight: bool = True
    bias: bool = True
    narrow: bool = False  # weight and bias have the dtype of x

    def __str__(self) -> str:
        aligned = 'aligned' if self.aligned else 'unaligned'
        return (
            f'sm_{self.arch}-{self.regime}-{self.layout}-{self.dtype}-{aligned}-'
            f'{self.kind}'
        )

    def case(self, seed: int = 0) -> Case:
        """Random tensors, beside a multiple of 16 bytes if unaligned."""
        dtype = DTYPES[self.dtype]
        case = make_case(
            self.shape,
            self.groups,
            dtype=dtype,
            layout=self.layout,
            kind=self.kind,
            weight=self.weight,
            bias=self.bias,
            weight_dtype=dtype if self.narrow else None,
            seed=seed,
        )
        if self.aligned:
            return case
        names = ('x', 'weight', 'bias', 'residual', 'dy')
        return replace(case, **{name: _shifted(getattr(case, name)) for name in names})


def combinations() -> list[Combination]:
    """Every GPU, alignment, dtype, layout and regime; each pair of the last two with
    every kind, and the rest in turn."""
    found = []
    blocks = itertools.product(ARCHS, (True, False), DTYPES)
    for block, (arch, aligned, dtype) in enumerate(blocks):
        for i, (layout, regime) in enumerate(itertools.product(LAYOUTS, LIMITS)):
            kind = list(KINDS)[(i + block) % len(KINDS)]
            shape, groups = SHAPES[(i + 2 * block) % len(SHAPES)]
            bare = (i + block) % 4
            found.append(
                Combination(
                    arch,
                    aligned,
                    dtype,
                    layout,
                    regime,
                    kind,
                    shape,
                    groups,
                    weight=bare not in (1, 3),
                    bias=bare not in (2, 3),
                    narrow=(i + block) % 3 == 1,
                )
            )
    return found


def _shifted(tensor: Tensor | None) -> Tensor | None:
    """The same values one element beyond a multiple of 16 bytes."""
    if tensor is None:
        return None
    buffer = tensor.new_empty(tensor.numel() + 1)
    return buffer.as_strided(tensor.size(), tensor.stride(), 1).copy_(tensor)


@contextmanager
def regime(name: str) -> Iterator[None]:
    """The launcher's limits of a regime."""
    with mock.patch.object(triton_launch, 'LIMITS', LIMITS[name]):
        yield


def assert_no_conflicts(emulated: EmulatedOps) -> None:
    """No two threads stored different values to one place."""
    conflicts = sum((counts.conflicts for counts in emulated.launches), Counter())
    assert not conflicts, conflicts


def check(combination: Combination) -> list[str]:
    """Holds both orders of the CTAs to the op's bound; the kernels that ran."""
    case = combination.case()
    with regime(combination.regime):
        with EmulatedOps(combination.arch) as emulated:
            assert_accurate(case, 'triton')
            first = run(case, 'triton')
        with EmulatedOps(combination.arch, shuffle=1) as shuffled:
            second = run(case, 'triton')
    assert_no_conflicts(emulated)
    assert_no_conflicts(shuffled)
    assert torch.equal(first[0], second[0])
    for one, other in zip(first[1], second[1], strict=True):
        assert one is None or torch.equal(one, other)
    return sorted({counts.kernel for counts in emulated.launches})


def check_real(combination: Combination) -> None:
    """Holds a case to the op's bound, in one order, with an H100's grids."""
    with EmulatedOps(combination.arch, sms=132) as emulated:
        assert_accurate(combination.case(), 'triton')
    assert_no_conflicts(emulated)


def unnoticed(combination: Combination, fault: str) -> tuple[int, list[Plant]]:
    """How often a fault was planted, and where nothing gave it away."""
    found: dict[str, str] = {}

    def keep(ptx: str) -> str:
        found[kernel_name(ptx)] = ptx
        return ptx

    assert not _noticed(combination, keep)
    plants = [p for ptx in found.values() for p in Plant.each(ptx, fault)]
    return len(plants), [p for p in plants if not _noticed(combination, p)]


def _noticed(combination: Combination, edit: Callable[[str], str]) -> bool:
    """Whether an edit of the PTX shows in a case."""
    try:
        with (
            regime(combination.regime),
            EmulatedOps(combination.arch, edit=edit) as emulated,
        ):
            assert_accurate(combination.case(), 'triton')
        assert_no_conflicts(emulated)
    except (Fault, Unsupported, AssertionError):
        return True
    return False

"""What launchers of Triton kernels launch, caught without a GPU.

Triton believes in a CUDA device of a given capability: its own code specialises the
arguments and compiles, and what it would have launched is kept instead. Tensors stay on
the CPU, and nobody reads them, so their pages are never touched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from torch import Tensor
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from gn_det.ops.precompile import CompileOnlyDriver


@dataclass(frozen=True)
class CapturedLaunch:
    """A compiled kernel, its grid, and its run-time arguments by name, in order.

    Arguments that were compiled in (constants, and numbers that Triton specialised)
    are left out, so that these are the parameters of the PTX.
    """

    compiled: Any
    grid: tuple[int, int, int]
    arguments: dict[str, Tensor | int | float]

    @property
    def name(self) -> str:
        return self.compiled.metadata.name

    @property
    def programs(self) -> int:
        return self.grid[0] * self.grid[1] * self.grid[2]

    @property
    def ptx(self) -> str:
        return self.compiled.asm['ptx']


@contextlib.contextmanager
def capture(capability: int = 90) -> Iterator[list[CapturedLaunch]]:
    """The launches made inside, of every Triton kernel, none of which runs."""
    found: list[CapturedLaunch] = []
    compile_only = JITFunction.run

    def run(kernel, *args, grid, warmup, **kwargs):
        compiled = compile_only(kernel, *args, grid=grid, warmup=True, **kwargs)
        bound = dict(zip(kernel.arg_names, args, strict=False))
        bound |= {name: kwargs[name] for name in kernel.arg_names if name in kwargs}
        sizes = grid(bound) if callable(grid) else grid
        types = compiled.src.signature
        found.append(
            CapturedLaunch(
                compiled,
                (*sizes, 1, 1)[:3],
                {n: v for n, v in bound.items() if types[n] != 'constexpr'},
            )
        )

    before = driver._active
    driver.set_active(CompileOnlyDriver(capability))
    try:
        with mock.patch.object(JITFunction, 'run', run):
            yield found
    finally:
        driver._active = before

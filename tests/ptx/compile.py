"""Compiles Triton kernels for a GPU that need not be there."""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tests.ptx.execute import Step, steps
from tests.ptx.parse import Program, parse

_CUOBJDUMP = Path(triton.__file__).parent / 'backends' / 'nvidia' / 'bin' / 'cuobjdump'


@dataclass(frozen=True)
class Resources:
    """What ptxas gave a thread: registers, and bytes of stack and of spills."""

    registers: int
    stack: int
    local: int


@dataclass(frozen=True, eq=False)
class Compiled:
    """A kernel's PTX, ready to execute, and its cubin.

    `arguments` are the names of what a launch passes, in order.
    """

    ptx: str
    cubin: bytes
    arguments: tuple[str, ...]
    shared_bytes: int

    @functools.cached_property
    def program(self) -> Program:
        """The parsed kernel."""
        return parse(self.ptx)

    @functools.cached_property
    def steps(self) -> tuple[Step | None, ...]:
        """The kernel's instructions as functions."""
        return steps(self.program)

    @functools.cached_property
    def resources(self) -> Resources:
        """Registers and spills, as cuobjdump reads them from the cubin."""
        with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
            file.write(self.cubin)
            file.flush()
            text = subprocess.run(
                [_CUOBJDUMP, '-res-usage', file.name],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        found = dict(re.findall(r'(REG|STACK|LOCAL):(\d+)', text))
        return Resources(*(int(found[name]) for name in ('REG', 'STACK', 'LOCAL')))


def compile_kernel(
    kernel: triton.JITFunction,
    signature: Mapping[str, str],
    constexprs: Mapping[str, object],
    arch: int = 90,
    aligned: Iterable[str] | None = None,
    **options,
) -> Compiled:
    """The kernel for sm_<arch>.

    `signature` has a type such as '*bf16', 'i32' or 'fp32' for each run-time argument,
    `constexprs` the other ones' values. Pointers named in `aligned` (all, if None) are
    multiples of 16 bytes. `options` are Triton's: num_warps, enable_fp_fusion, …
    """
    names = tuple(kernel.arg_names)
    missing = set(names) - set(signature) - set(constexprs)
    if missing:
        raise TypeError(f'{kernel.__name__} lacks {", ".join(sorted(missing))}')
    if aligned is None:
        aligned = [name for name, type_ in signature.items() if type_[0] == '*']
    return _compile(
        kernel,
        tuple((n, 'constexpr' if n in constexprs else signature[n]) for n in names),
        tuple((n, constexprs[n]) for n in names if n in constexprs),
        arch,
        frozenset(aligned),
        tuple(sorted(options.items())),
    )


@functools.cache
def _compile(kernel, signature, constexprs, arch, aligned, options) -> Compiled:
    source = ASTSource(
        kernel,
        dict(signature),
        constexprs=dict(constexprs),
        attrs={
            (i,): [['tt.divisibility', 16]]
            for i, (name, _) in enumerate(signature)
            if name in aligned
        },
    )
    binary = triton.compile(
        source, target=GPUTarget('cuda', arch, 32), options=dict(options)
    )
    return Compiled(
        ptx=binary.asm['ptx'],
        cubin=binary.asm['cubin'],
        arguments=tuple(name for name, type_ in signature if type_ != 'constexpr'),
        shared_bytes=binary.metadata.shared,
    )

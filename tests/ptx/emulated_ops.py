"""gn_det's launcher on CPU tensors, its compiled kernels executed by the emulator."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from unittest import mock

import numpy as np
import torch

from gn_det.ops import triton_launch
from tests.ptx.compile import Compiled, compile_kernel
from tests.ptx.counts import Counts
from tests.ptx.launch import launch
from tests.ptx.memory import GlobalMemory
from tests.ptx.parse import Unsupported

_TYPES = {torch.float32: '*fp32', torch.float16: '*fp16', torch.bfloat16: '*bf16'}


class EmulatedOps:
    """While it is entered, `impl='triton'` serves CPU tensors by compiled kernels.

    Plans, grids, the order of arguments and the tensors that stand for missing ones are
    the launcher's. Every launch executes what Triton compiles for its pointers' real
    alignment, on memory where what nobody wrote may not be read. `launches` are the
    counts of each, in order.

    Args:
        arch: The compute capability, 90 or 80.
        sms: Multiprocessors for which the launcher chooses its grids.
        shuffle: Seed of a random order of the CTAs; None for their own.
        count: Whether to count sectors and wavefronts.
        edit: Changes the PTX of a kernel before it runs.
    """

    def __init__(
        self,
        arch: int = 90,
        *,
        sms: int = 4,
        shuffle: int | None = None,
        count: bool = False,
        edit: Callable[[str], str] | None = None,
    ):
        self.arch, self.sms, self.count, self.edit = arch, sms, count, edit
        self.launches: list[Counts] = []
        self._random = None if shuffle is None else np.random.default_rng(shuffle)
        self._memory = GlobalMemory()
        self._patches = ExitStack()

    def __enter__(self) -> EmulatedOps:
        def call(bound, aligned, *arguments):
            self._launch(bound, aligned, arguments)

        for target, name, value in (
            (triton_launch.Launch, '__call__', call),
            (triton_launch, '_empty_like', self._allocating(torch.empty_like)),
            (triton_launch, '_new_empty', self._allocating(torch.Tensor.new_empty)),
            (triton_launch, 'INTERPRETED', True),
            (triton_launch, 'INTERPRETER_SMS', self.sms),
        ):
            self._patches.enter_context(mock.patch.object(target, name, value))
        triton_launch.clear_plans()
        return self

    def __exit__(self, *exception) -> None:
        self._patches.close()
        triton_launch.clear_plans()

    def _allocating(self, empty: Callable[..., torch.Tensor]):
        def allocate(*args, **kwargs) -> torch.Tensor:
            tensor = empty(*args, **kwargs)
            if tensor.is_floating_point():
                tensor.fill_(float('nan'))
            self._memory.add(tensor, ready=False)
            return tensor

        return allocate

    def _launch(self, bound, aligned: bool, arguments: tuple) -> None:
        arguments = (*arguments, *bound.scalars.values())
        compiled = self._compile(bound, aligned, arguments)
        order = None
        if self._random is not None:
            order = self._random.permutation(bound.grid[0])
        self.launches.append(
            launch(
                compiled,
                bound.grid,
                arguments,
                order,
                memory=self._memory,
                count=self.count,
            )
        )

    def _compile(self, bound, aligned: bool, arguments: tuple) -> Compiled:
        kernel = bound.kernel
        fixed = {p.name for p in kernel.params if p.do_not_specialize}
        names = [name for name in kernel.arg_names if name not in bound.constexprs]
        signature, multiples = {}, []
        for name, argument in zip(names, arguments, strict=True):
            if isinstance(argument, torch.Tensor):
                signature[name] = _TYPES[argument.dtype]
                if self._memory.add(argument).start % 16 == 0:
                    multiples.append(name)
                elif aligned:
                    raise AssertionError(f'{name} is not aligned, but said to be')
            elif isinstance(argument, float):
                signature[name] = 'fp32'
            elif name in fixed and -(2**31) <= argument < 2**31:
                signature[name] = 'i32'
            else:
                raise Unsupported(f'{kernel.__name__} is specialised on {name}')
        compiled = compile_kernel(
            kernel, signature, bound.constexprs, self.arch, multiples, **bound.options
        )
        if self.edit is not None:
            edited = self.edit(compiled.ptx)
            if edited != compiled.ptx:
                compiled = replace(compiled, ptx=edited)
        return compiled

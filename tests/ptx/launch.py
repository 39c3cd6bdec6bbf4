"""Executes a grid of a compiled kernel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tests.ptx.arithmetic import TYPES
from tests.ptx.compile import Compiled
from tests.ptx.counts import WARP, Counts
from tests.ptx.execute import Execution
from tests.ptx.memory import GlobalMemory, Unbacked

_LANES = 1 << 15  # threads that run together; more only cost memory


def launch(
    compiled: Compiled,
    grid: Sequence[int],
    arguments: Sequence[torch.Tensor | Unbacked | int | float],
    order: Sequence[int] | None = None,
    *,
    memory: GlobalMemory | None = None,
    count: bool = True,
) -> Counts:
    """Runs the CTAs of a grid, writes into the tensors and says what was done.

    Args:
        compiled: The kernel.
        grid: CTAs in x, and in y and z.
        arguments: Of `compiled.arguments`, in order: dense CPU tensors, Unbacked ones
            or numbers.
        order: Linear indices of the CTAs to run, one after another, all or a sample of
            them. All in their order if None.
        memory: Keeps what is known of tensors from launch to launch. Without it every
            byte passes as initialised.
        count: Whether to count sectors and wavefronts; instructions are always.

    Raises:
        Fault: For what no kernel may do.
        Unsupported: For PTX that the emulator does not know.
    """
    program = compiled.program
    memory = GlobalMemory() if memory is None else memory
    for buffer in memory.buffers:
        buffer.name = ''
    values = []
    for name, argument in zip(compiled.arguments, arguments, strict=True):
        if isinstance(argument, (torch.Tensor, Unbacked)):
            buffer = memory.add(argument)
            buffer.name = buffer.name or name
            argument = buffer.start
        values.append(argument)
    # Triton adds pointers to scratch memory that these kernels do not use.
    values += [0] * (len(program.parameters) - len(values))
    sizes = (*grid, 1, 1)[:3]
    ctas = np.arange(np.prod(sizes)) if order is None else np.asarray(order)
    counts = Counts(program.name, sizes, len(ctas), -(-program.threads // WARP))
    used = [buffer for buffer in memory.buffers if buffer.name]
    for buffer in used:
        buffer.fetch()
    Execution(
        program=program,
        steps=compiled.steps,
        parameters={
            name: np.array([[value]], TYPES[type_])
            for (name, type_), value in zip(program.parameters, values, strict=True)
        },
        memory=memory,
        shared_bytes=compiled.shared_bytes,
        grid=sizes,
        counts=counts,
        count=count,
    ).run(ctas, _LANES)
    for buffer in used:
        buffer.store()
    return counts

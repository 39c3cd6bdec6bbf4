"""Kernels before they are needed: which ones, and compiling them in parallel.

Neither needs a GPU. Triton's cache knows a kernel by its source, its constants, the
types of its arguments and the architecture, not by the machine.
"""

import contextlib
import importlib
import itertools
import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from unittest import mock

import torch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from gn_det.ops import triton_launch
from gn_det.ops.dispatch import implementation


@dataclass(frozen=True)
class Kernel:
    """What Triton compiles a kernel for: all that tells two of them apart.

    `dtypes` are those of its pointers, in order; every pointer is 16-byte aligned.
    """

    module: str
    name: str
    dtypes: tuple[torch.dtype, ...]
    constexprs: tuple[tuple[str, int | str | None], ...]
    options: tuple[tuple[str, int | bool], ...]


@contextlib.contextmanager
def kernels_of(sms: int) -> Iterator[set[Kernel]]:
    """The kernels of `group_norm`'s calls inside, on a GPU of `sms` multiprocessors.

    Calls on tensors of the meta device take the path of the kernels, forward and
    backward, up to the launch; results are meta tensors.
    """
    found: set[Kernel] = set()

    def note(
        launch: triton_launch.Launch, aligned: bool, *args: Tensor | float
    ) -> None:
        function = launch.kernel.fn
        found.add(
            Kernel(
                function.__module__,
                function.__name__,
                tuple(arg.dtype for arg in args if isinstance(arg, Tensor)),
                tuple(launch.constexprs.items()),
                tuple(launch.options.items()),
            )
        )

    triton_launch.clear_plans()
    try:
        with (
            mock.patch.object(triton_launch.Launch, '__call__', note),
            # The switch that admits tensors of other devices; nothing interprets.
            mock.patch.object(triton_launch, 'INTERPRETED', True),
            mock.patch.object(triton_launch, 'INTERPRETER_SMS', sms),
            implementation('triton'),
        ):
            triton_launch.probe('meta')
            yield found
    finally:
        triton_launch.clear_plans()


def compile_kernels(
    kernels: Iterable[Kernel], capability: int, processes: int
) -> Iterator[Kernel]:
    """Compiles for a compute capability, such as 90; yields each that is in the cache.

    The processes are new ones, so the caller needs to guard its main module as for any
    use of multiprocessing.
    """
    spawn = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        yield from pool.map(_compile, kernels, itertools.repeat(capability))


class CompileOnlyDriver:
    """As much of a driver as Triton's compiler asks for."""

    def __init__(self, capability: int):
        self._target = GPUTarget('cuda', capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def _compile(kernel: Kernel, capability: int) -> Kernel:
    driver.set_active(CompileOnlyDriver(capability))
    function = getattr(importlib.import_module(kernel.module), kernel.name)
    constexprs = dict(kernel.constexprs)
    dtypes = iter(kernel.dtypes)
    # No kernel is specialised on a number.
    numbers = {name: 1e-5 if name == 'eps' else 1 for name in function.arg_names}
    args = [
        next(dtypes) if name.startswith('p_') else numbers[name]
        for name in function.arg_names
        if name not in constexprs
    ]
    function.warmup(*args, grid=(1,), **constexprs, **dict(kernel.options))
    return kernel

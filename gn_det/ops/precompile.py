"""Which kernels a model's calls need, without a GPU and without running one."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from unittest import mock

import torch
from torch import Tensor

from gn_det.ops import triton_launch
from gn_det.ops.dispatch import implementation


@dataclass(frozen=True)
class Kernel:
    """What Triton compiles a kernel for: all that tells two of them apart.

    `dtypes` are those of its pointers, in order; every pointer is 16-byte aligned.
    """

    name: str
    dtypes: tuple[torch.dtype, ...]
    constexprs: tuple[tuple[str, int | str | None], ...]
    num_warps: int


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
        found.add(
            Kernel(
                launch.kernel.__name__,
                tuple(arg.dtype for arg in args if isinstance(arg, Tensor)),
                tuple(launch.constexprs.items()),
                launch.options['num_warps'],
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
            yield found
    finally:
        triton_launch.clear_plans()

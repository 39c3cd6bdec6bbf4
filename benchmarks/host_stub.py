"""Host cost without a GPU: everything up to the launch, and no launch."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from unittest import mock

from gn_det.ops import implementation, triton_launch

REGIMES = ('on-chip', 'split')


@contextlib.contextmanager
def regime(name: str) -> Iterator[None]:
    """Forces one of the launcher's regimes, so that one small map shows both."""
    limits = triton_launch.LIMITS
    if name == 'split':
        limits = replace(limits, on_chip_fwd=0, on_chip_bwd=0)
    triton_launch.clear_plans()
    try:
        with mock.patch.object(triton_launch, 'LIMITS', limits):
            yield
    finally:
        triton_launch.clear_plans()


def _no_launch(*args) -> None:
    pass


@contextlib.contextmanager
def launches_stubbed() -> Iterator[None]:
    """CPU tensors take the Triton path; its compiled kernels are replaced by nothing.

    Validation, dispatch, the autograd function, plan lookup, allocation and the
    argument handling of `Launch` run as on a GPU. What is missing: Triton's own packing
    of arguments and the driver's launch. Outputs are uninitialised memory.
    """
    initialise = triton_launch.Launch.__init__

    def initialise_without_kernel(self, *args, **kwargs):
        initialise(self, *args, **kwargs)
        self._compiled = _no_launch

    triton_launch.clear_plans()
    try:
        with (
            mock.patch.object(
                triton_launch.Launch, '__init__', initialise_without_kernel
            ),
            # The switch that admits CPU tensors; no kernel runs, so none interprets.
            mock.patch.object(triton_launch, 'INTERPRETED', True),
            implementation('triton'),
        ):
            yield
    finally:
        triton_launch.clear_plans()

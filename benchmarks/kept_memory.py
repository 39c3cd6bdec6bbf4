"""What a training step keeps for backward, and the norms it calls, on fake tensors.

`gn_det.workbench.inspection.kept_memory` counts what is kept; here are the variants of
the step, and the norms' calls with the bytes that they move.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.bytes_model import moved_bytes
from gn_det.workbench.inspection.kept_memory import Kept, kept_by


@dataclass
class NormCalls:
    """Forward passes of fused norms, and the bytes they move by the byte model."""

    calls: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Counted:
    """A training step in numbers."""

    kept: Kept
    forward: NormCalls
    recomputed: NormCalls
    """The norms' forward passes that backward makes."""


@contextlib.contextmanager
def cuda_norm_policy() -> Iterator[None]:
    """`F.group_norm` under CPU autocast as under CUDA's: in fp32, with an fp32 result.

    CUDA's autocast has group_norm on its fp32 list, the CPU's has not.
    """
    group_norm = F.group_norm

    def in_fp32(x, num_groups, weight=None, bias=None, eps=1e-5):
        if torch.is_autocast_enabled('cpu'):
            x = x.float()
        return group_norm(x, num_groups, weight, bias, eps)

    with mock.patch.object(F, 'group_norm', in_fp32):
        yield


class _NormCounter(TorchDispatchMode):
    """Counts the forward passes of the fused norm while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.found = NormCalls()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.gn_det.group_norm.default:
            x, activation, residual = args[0], args[5], args[6]
            kind = activation or 'plain'
            if residual is not None:
                kind = 'residual_relu'
            self.found.calls += 1
            self.found.bytes += moved_bytes('fwd', kind, x.numel(), x.itemsize)
        return function(*args, **(kwargs or {}))


def backward(outputs: list[Tensor]) -> None:
    """Runs backward from every output, with ones."""
    roots = [output for output in outputs if output.requires_grad]
    torch.autograd.backward(roots, [torch.ones_like(root) for root in roots])


def count_fake(
    make: Callable[[], nn.Module],
    size: tuple[int, int, int],
    *,
    amp: bool,
    recomputing: bool = False,
    norm_policy: bool = False,
) -> Counted:
    """A training step of a model that is made and run on fake tensors.

    Args:
        make: makes the model.
        size: images, and their height and width as padded.
        amp: under autocast to bfloat16.
        recomputing: inside `gn_det.ops.recompute_activations`.
        norm_policy: with `cuda_norm_policy`.
    """
    batch, height, width = size
    policy = cuda_norm_policy() if norm_policy else contextlib.nullcontext()
    with FakeTensorMode(), policy:
        model = make()
        images = torch.zeros(batch, 3, height, width)
        with _NormCounter() as forward:
            kept, outputs = kept_by(model, images, amp=amp, recomputing=recomputing)
        with _NormCounter() as recomputed:
            if recomputing:
                backward(outputs)
    return Counted(kept, forward.found, recomputed.found)

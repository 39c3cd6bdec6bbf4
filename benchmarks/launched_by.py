"""What each implementation launches for a case, caught without a GPU.

Peers are looked for where Python finds them; one that is not there has no rows.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch
import triton.language as tl
from torch import Tensor
from triton import next_power_of_2

from benchmarks.captured_launches import CapturedLaunch, capture
from benchmarks.cases import DTYPES, Case
from benchmarks.hardware import H100
from gn_det.ops import group_norm, triton_launch

# Elements of a tile beyond which FlagGems' kernels do not compile within minutes.
_FLAG_GEMS_TILE = 1 << 16


class Uncounted(Exception):
    """A case that an implementation cannot be counted for."""


Launches = dict[str, list[CapturedLaunch]]


def _map(case: Case) -> Tensor:
    """A tensor nobody reads or writes, so that its pages are never touched."""
    N, C, H, W = case.N, case.C, case.H, case.W
    strides = (C * H * W, H * W, W, 1)
    if case.layout == 'nhwc':
        strides = (C * H * W, 1, W * C, C)
    return torch.empty_strided((N, C, H, W), strides, dtype=DTYPES[case.dtype])


@contextlib.contextmanager
def _served_on_cpu() -> Iterator[None]:
    """The launcher takes CPU tensors, with grids for the modelled device."""
    triton_launch.clear_plans()
    with (
        mock.patch.object(triton_launch, 'INTERPRETED', True),
        mock.patch.object(triton_launch, 'INTERPRETER_SMS', H100.sms),
    ):
        yield
    triton_launch.clear_plans()


def gn_det(case: Case) -> Launches:
    """The fused operation; weight and bias in fp32, all gradients asked for."""
    x = _map(case).requires_grad_()
    residual = _map(case).requires_grad_() if case.residual else None
    weight, bias = (torch.empty(case.C, requires_grad=True) for _ in range(2))
    leaves = [t for t in (x, weight, bias, residual) if t is not None]
    with _served_on_cpu():
        with capture() as fwd:
            y = group_norm(
                x,
                case.G,
                weight,
                bias,
                activation='relu' if case.relu else None,
                residual=residual,
                impl='triton',
            )
        with capture() as bwd:
            torch.autograd.grad(y, leaves, _map(case))
    return {'fwd': fwd, 'bwd': bwd}


def liger(case: Case) -> Launches:
    """Liger Kernel's norm alone, of contiguous maps."""
    from liger_kernel.ops import group_norm as peer

    x, dy = _map(case), _map(case)
    weight, bias = torch.empty(case.C), torch.empty(case.C)
    with capture() as fwd:
        _, flat, mean, rstd, _ = peer.group_norm_forward(
            x, case.C, case.G, weight, bias, 1e-5
        )
    with capture() as bwd:
        peer.group_norm_backward(dy, flat, weight, bias, mean, rstd, case.C, case.G)
    return {'fwd': fwd, 'bwd': bwd}


def flag_gems(case: Case) -> Launches:
    """FlagGems' norm alone, of contiguous maps."""
    tile = next_power_of_2(case.C // case.G) * next_power_of_2(case.H * case.W)
    if tile > _FLAG_GEMS_TILE:
        raise Uncounted(f'a tile of {tile} elements does not compile within minutes')
    peer = _flag_gems_module()
    x, dy = _map(case), _map(case)
    weight, bias = torch.empty(case.C), torch.empty(case.C)
    sizes = (case.N, case.C, case.H * case.W, case.G)
    with capture() as fwd:
        _, mean, rstd = peer.group_norm(x, weight, bias, *sizes)
    with capture() as bwd:
        peer.group_norm_backward(dy, x, mean, rstd, weight, *sizes, (True, True, True))
    return {'fwd': fwd, 'bwd': bwd}


def _flag_gems_module() -> types.ModuleType:
    """Its file of kernels, without the parts of the package that ask for a GPU."""
    from triton.language.extra import libdevice

    spec = importlib.util.find_spec('flag_gems')
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError('No module named flag_gems', name='flag_gems')
    path = Path(spec.origin).parent / 'ops' / 'groupnorm.py'
    device = types.SimpleNamespace(device=lambda _: contextlib.nullcontext())
    package = types.ModuleType('flag_gems')
    runtime = types.ModuleType('flag_gems.runtime')
    vars(runtime).update(torch_device_fn=device)
    utils = types.ModuleType('flag_gems.utils')
    vars(utils).update(
        libentry=lambda: lambda kernel: kernel,
        tl_extra_shim=libdevice,
        triton_lang_extension=tl,
    )
    stand_ins = {m.__name__: m for m in (package, runtime, utils)}
    with mock.patch.dict(sys.modules, stand_ins):
        loader = importlib.util.spec_from_file_location('flag_gems_groupnorm', path)
        module = importlib.util.module_from_spec(loader)
        loader.loader.exec_module(module)
    return module


def inductor(case: Case) -> Launches:
    """torch.compile's kernels of the norm, the addition and the ReLU in one graph."""
    from benchmarks.inductor_kernels import launches

    sizes = (case.N, case.C, case.H * case.W, case.G)
    x, y, dy = _map(case), _map(case), _map(case)
    residual = [_map(case)] if case.residual else []
    weight, bias = torch.empty(case.C), torch.empty(case.C)
    mean, rstd = torch.empty(case.N, case.G), torch.empty(case.N, case.G)

    def forward(x, weight, bias, *residual):
        z = torch.group_norm(x, case.G, weight, bias)
        for other in residual:
            z = z + other
        return (z.relu() if case.relu else z,)

    def backward(dy, y, x, mean, rstd, weight):
        dz = torch.ops.aten.threshold_backward(dy, y, 0) if case.relu else dy
        gradients = torch.ops.aten.native_group_norm_backward(
            dz, x, mean, rstd, weight, *sizes, [True, True, True]
        )
        return (*gradients, dz) if case.residual else gradients

    return {
        'fwd': launches(forward, [x, weight, bias, *residual]),
        'bwd': launches(backward, [dy, y, x, mean, rstd, weight]),
    }


# Those that fuse the addition and the ReLU, and those that only normalise.
FUSED: dict[str, Callable[[Case], Launches]] = {'gn_det': gn_det, 'inductor': inductor}
NORM_ONLY: dict[str, Callable[[Case], Launches]] = {
    'liger': liger,
    'flag_gems': flag_gems,
}

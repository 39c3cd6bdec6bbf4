"""Tensors that say they are on a CUDA device and compute on the CPU.

They take the paths that a GPU's tensors take, through the dispatcher, so that a machine
without one learns what a GPU would be asked for. Each operator of torch that is reached
must have a CUDA kernel, and must not mix the two devices in a way that CUDA refuses:
a tensor of the CPU among its arguments is an error, unless it is one number, an index,
or the source or target of a copy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import _engine_run_backward
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    return_and_correct_aliasing,
)
from torch.utils._pytree import tree_flatten, tree_map

__all__ = ['PretendCuda', 'module_to_pretend_cuda', 'pretend_cuda']

_DEVICE = torch.device('cuda', 0)
_MAY_MIX = ('aten::copy_', 'aten::index', 'aten::_index_put_impl_')


class PretendCuda(Tensor):
    """A tensor of the CPU that answers as one of CUDA; made within `pretend_cuda`."""

    @staticmethod
    def __new__(cls, data: Tensor) -> PretendCuda:
        tensor = Tensor._make_wrapper_subclass(
            cls,
            data.shape,
            strides=data.stride(),
            storage_offset=data.storage_offset(),
            dtype=data.dtype,
            device='cpu',
        )
        tensor.on_cpu = data.detach()
        return tensor

    device = property(lambda self: _DEVICE)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def __repr__(self) -> str:
        return f'PretendCuda({self.on_cpu})'

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.name()
        _require_kernel(name)
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        of_cpu = [t for t in tensors if not isinstance(t, cls) and t.dim()]
        if of_cpu and not name.startswith(_MAY_MIX):
            raise RuntimeError(f'{name}: a tensor of the CPU among those of CUDA')
        to_cpu = tree_map(lambda x: x.on_cpu if isinstance(x, cls) else x, args)
        output = func(*to_cpu, **tree_map(_on_cpu, kwargs))
        wrapped = tree_map(lambda x: cls(x) if isinstance(x, Tensor) else x, output)
        return return_and_correct_aliasing(func, args, kwargs, wrapped)


class _ToCuda(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:
        return PretendCuda(tensor)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return _on_cpu(grad)


class _ToCpu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor: PretendCuda) -> Tensor:
        return tensor.on_cpu.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return PretendCuda(grad)


class _Devices(TorchFunctionMode):
    """Answers the calls that name a device, or that leave it."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        first = args[0] if args else None
        pretends = _pretends(first)
        if func is Tensor.numpy and pretends:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func is Tensor.tolist and pretends:
            return first.on_cpu.tolist()
        if func is Tensor.cpu:
            return _ToCpu.apply(first) if pretends else first
        if func is Tensor.cuda:
            return first if pretends else _ToCuda.apply(first)
        if func is Tensor.backward:
            with self:
                return _backward(*args, **kwargs)
        if func is F.one_hot and pretends:
            # It makes a tensor of its own, below the dispatcher's Python.
            return PretendCuda(func(first.on_cpu, *args[1:], **kwargs))
        if func is Tensor.type_as:
            func = Tensor.to
        if func is Tensor.new_tensor:
            numbers = tree_map(lambda x: x.item() if _pretends(x) else x, args[1:])
            args = (first, *numbers)
        named = _device_of(func, args, kwargs)
        args = tuple(_without_cuda(x) for x in args)
        kwargs = {key: _without_cuda(x) for key, x in kwargs.items()}
        if func is Tensor.to and named is not None:
            if pretends and named.type == 'cpu':
                first = _ToCpu.apply(first)
            elif not pretends and named.type == 'cuda':
                first = _ToCuda.apply(first)
            rest = (x.dtype if isinstance(x, Tensor) else x for x in args[1:])
            return func(first, *rest, **kwargs)
        output = func(*args, **kwargs)
        on_cuda = named is not None and named.type == 'cuda'
        if type(output) is Tensor and (
            on_cuda or (func is Tensor.new_tensor and pretends)
        ):
            return PretendCuda(output).requires_grad_(output.requires_grad)
        return output


@contextlib.contextmanager
def pretend_cuda() -> Iterator[None]:
    """Let torch, mmcv and mmdet take a CUDA device for present."""
    from mmcv.ops import multi_scale_deform_attn

    with (
        mock.patch.object(torch.cuda, 'is_available', return_value=True),
        mock.patch.object(torch.cuda, 'current_device', return_value=0),
        mock.patch.object(multi_scale_deform_attn, 'IS_CUDA_AVAILABLE', True),
        _Devices(),
    ):
        yield


def module_to_pretend_cuda(module: nn.Module) -> nn.Module:
    """Move parameters and buffers, in place."""
    moved = {}
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                if id(tensor) not in moved:
                    copy = PretendCuda(tensor.detach().clone())
                    if isinstance(tensor, nn.Parameter):
                        copy = nn.Parameter(copy, tensor.requires_grad)
                    moved[id(tensor)] = copy
                tensors[name] = moved[id(tensor)]
    return module


class _ConstantsOfBackward(TorchDispatchMode):
    """The zeros and ones that autograd's formulas make are where their tensors are."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        made = func.name() in ('aten::zeros', 'aten::ones')
        return PretendCuda(output) if made else output


def _backward(
    tensor: Tensor,
    gradient: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: tuple[Tensor, ...] | None = None,
) -> None:
    """`Tensor.backward`, which itself would run with the mode switched off."""
    if gradient is None:
        gradient = torch.ones_like(tensor)
    with _ConstantsOfBackward():
        _engine_run_backward(
            (tensor,),
            (gradient,),
            bool(retain_graph),
            create_graph,
            tuple(inputs or ()),
            allow_unreachable=True,
            accumulate_grad=True,
        )


def _require_kernel(name: str) -> None:
    # A torch built without CUDA knows none of its kernels.
    if torch.version.cuda and not (
        torch._C._dispatch_has_computed_kernel_for_dispatch_key(name, 'CUDA')
    ):
        raise NotImplementedError(f'{name} has no CUDA kernel')


def _pretends(x: object) -> bool:
    return isinstance(x, PretendCuda)


def _on_cpu(x: object) -> object:
    return x.on_cpu if _pretends(x) else x


def _device_of(func: object, args: tuple, kwargs: dict) -> torch.device | None:
    """The device that a call names; `Tensor.to` may name it by a tensor."""
    named = kwargs.get('device')
    for x in args[1:] if named is None else ():
        if isinstance(x, torch.device) or (isinstance(x, str) and func is Tensor.to):
            named = x
        elif isinstance(x, Tensor) and func is Tensor.to:
            named = x.device
    if isinstance(named, int):
        return torch.device('cuda', named)
    return torch.device(named) if named is not None else None


def _without_cuda(x: object) -> object:
    if isinstance(x, torch.device) and x.type == 'cuda':
        return torch.device('cpu')
    if isinstance(x, str) and x.startswith('cuda'):
        return 'cpu'
    return x

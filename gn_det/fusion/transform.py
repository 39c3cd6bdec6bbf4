"""`fuse` and `unfuse`: stock modules to fused ones and back, in place."""

from __future__ import annotations

from torch import nn

from gn_det.fusion.blocks import FUSIONS, FusedModule, fused_class
from gn_det.fusion.recomputing import Recomputing
from gn_det.fusion.report import FUSED_KINDS, FusionReport
from gn_det.layers import FusedGroupNorm

# On a norm that `fuse` made a FusedGroupNorm, so that `unfuse` knows it from others.
_WAS_STOCK = '_was_stock_group_norm'


def fuse(model: nn.Module, *, recompute: bool = False) -> FusionReport:
    """Let the Group Norms of a built model take in the ReLU and addition behind them.

    Every `nn.GroupNorm` becomes a `FusedGroupNorm`. In mmcv's ConvModule and mmdet's
    ResNet, ResNeXt and Res2Net blocks, and in any `nn.Sequential`, the norm is then
    called with what follows it: `relu(GN(x))` and `relu(GN(x) + identity)` become one
    operation. The change is one of classes in place: parameters, buffers, state-dict
    names and shapes, hooks, `isinstance` and train/eval state stay as they were, so it
    goes with loaded weights, DDP, EMA and frozen stages. Models built from this
    project's configs are fused already; fusing again changes nothing.

    Args:
        model: any model; one without Group Norm is left alone.
        recompute: recompute the norms' outputs in backward instead of keeping them
            (`gn_det.ops.recompute_activations` around the model's forward): less memory
            for more time, the same gradients.

    Returns:
        What was done to each Group Norm of the model, and why to some nothing.
    """
    reasons: dict[nn.Module, str] = {}
    for module in list(model.modules()):
        if type(module) is nn.GroupNorm:
            module.__class__ = FusedGroupNorm
            module.activation = None
            setattr(module, _WAS_STOCK, True)
    for module in list(model.modules()):
        fusion = FUSIONS.get(_owner_of_forward(type(module)), FusedModule)
        if isinstance(module, FusedModule) or not fusion.has_norms(module):
            continue
        if fusion is FusedModule:
            reason = f'what {type(module).__name__} does with it is not known here'
        else:
            reason = fusion.unfusable(module)
            if reason is None:
                module.__class__ = fused_class(fusion, type(module))
                continue
        norms = filter(_is_norm, module.children())
        reasons.update(dict.fromkeys(norms, reason))
    if recompute and not isinstance(model, Recomputing):
        model.__class__ = fused_class(Recomputing, type(model))
    return _report(model, reasons)


def unfuse(model: nn.Module) -> None:
    """Give a model that `fuse` changed its stock modules back, in place.

    Norms that were built as `FusedGroupNorm` stay; those that were `nn.GroupNorm` are
    that again. Weights and everything else stay. A model without fused modules is left
    alone.
    """
    for module in list(model.modules()):
        while isinstance(module, FusedModule):
            module.__class__ = type(module).stock
        if module.__dict__.pop(_WAS_STOCK, False):
            del module.activation
            module.__class__ = nn.GroupNorm


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.GroupNorm)


def _owner_of_forward(cls: type) -> str:
    """Module and name of the class that defines the forward `cls` has."""
    owner = next(base for base in cls.__mro__ if 'forward' in vars(base))
    return f'{owner.__module__}.{owner.__qualname__}'


def _report(model: nn.Module, reasons: dict[nn.Module, str]) -> FusionReport:
    report = FusionReport()
    found = dict(reasons)
    # A block around another knows more of what follows: the inner one comes first.
    for module in reversed(list(model.modules())):
        if isinstance(module, FusedModule):
            found.update(module.norms())
    for name, norm in model.named_modules():
        if not _is_norm(norm):
            continue
        what = found.get(norm, 'it stands alone')
        if not isinstance(norm, FusedGroupNorm):
            report.untouched[name] = f'its class is {type(norm).__name__}'
        elif what in FUSED_KINDS:
            getattr(report, what).append(name)
        else:
            report.plain[name] = what
    return report

"""`fuse` and `unfuse`: stock modules to fused ones and back, in place."""

from __future__ import annotations

from torch import nn

from gn_det.fusion.blocks import (
    FUSIONS,
    FusedModule,
    fused_class,
    is_fused_class,
    owner_of_forward,
)
from gn_det.fusion.recomputing import Recomputing
from gn_det.fusion.report import FUSED_KINDS, FusionReport
from gn_det.layers import FUSED_NORMS, FusedGroupNorm

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
            for more time, the same gradients. `unfuse` is the way back.

    Returns:
        What was done to each Group Norm of the model, and why to some nothing.
    """
    # Before anything is changed: no model is left half fused.
    refused: dict[nn.Module, str] = {}
    chosen: dict[nn.Module, type[FusedModule]] = {}
    for module in model.modules():
        fusion = _fusion_of(module)
        if isinstance(module, FusedModule) or not fusion.norms_of(module):
            continue
        if fusion is FusedModule:
            reason = f'what {type(module).__name__} does with it is not known here'
        else:
            reason = fusion.unfusable(module)
        if reason is None:
            chosen[module] = fusion
        else:
            refused[module] = reason
    for module in list(model.modules()):
        if type(module) is nn.GroupNorm:
            module.__class__ = FusedGroupNorm
            setattr(module, _WAS_STOCK, True)
    for module, fusion in chosen.items():
        module.__class__ = fused_class(fusion, type(module))
    if recompute and not isinstance(model, Recomputing):
        model.__class__ = fused_class(Recomputing, type(model))
    return _report(model, refused)


def unfuse(model: nn.Module) -> None:
    """Give a model that `fuse` changed its stock modules back, in place.

    Norms that were built as `FusedGroupNorm` stay; those that were `nn.GroupNorm` are
    that again. Weights and everything else stay. A model without fused modules is left
    alone, and so is a module whose class somebody derived from a fused one, as torch's
    parametrizations do: take those off first.
    """
    for module in list(model.modules()):
        while is_fused_class(type(module)):
            module.__class__ = type(module).stock
        if type(module) is FusedGroupNorm and module.__dict__.pop(_WAS_STOCK, False):
            module.__class__ = nn.GroupNorm


def _fusion_of(module: nn.Module) -> type[FusedModule]:
    return FUSIONS.get(owner_of_forward(type(module)), FusedModule)


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.GroupNorm)


def _report(model: nn.Module, refused: dict[nn.Module, str]) -> FusionReport:
    report = FusionReport()
    found: dict[nn.Module, str] = {}
    # A block around another knows more of what follows: the inner one comes first.
    for module in reversed(list(model.modules())):
        if isinstance(module, FusedModule):
            found.update(module.norms())
        elif module in refused:
            for norm in _fusion_of(module).norms_of(module):
                if found.get(norm) not in FUSED_KINDS:
                    found[norm] = refused[module]
    for name, norm in model.named_modules():
        if not _is_norm(norm):
            continue
        what = found.get(norm, 'it stands alone')
        if not isinstance(norm, FUSED_NORMS):
            report.untouched[name] = f'its class is {type(norm).__name__}'
        elif what not in FUSED_KINDS:
            report.plain[name] = what
        elif type(norm) not in FUSED_NORMS:
            report.plain[name] = f'its class is {type(norm).__name__}'
        else:
            getattr(report, what).append(name)
    return report

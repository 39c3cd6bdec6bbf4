"""`fuse` and `unfuse`: stock modules to fused ones and back, in place."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from gn_det.fusion.calls import FusedNorm
from gn_det.fusion.core import (
    KINDS,
    FusedModule,
    fused_class,
    fusion_of,
    is_fused_class,
    load_hosts,
)
from gn_det.fusion.recomputing import Recomputing, recomputing
from gn_det.fusion.report import FusionReport
from gn_det.layers import FUSED_NORMS, FusedGroupNorm

# On a norm that `fuse` made a FusedGroupNorm, so that `unfuse` knows it from others.
_WAS_STOCK = '_was_stock_group_norm'


def fuse(model: nn.Module, *, recompute: bool = False) -> FusionReport:
    """Let the Group Norms of a built model take in the activation and addition behind.

    Every `nn.GroupNorm` becomes a `FusedGroupNorm`. In the blocks that are registered,
    those of torchvision, timm, mmdet, mmpretrain and mmseg by default
    (`gn_det.fusion.register` adds others), the norm is then called with what follows
    it: `relu(GN(x))` and `relu(GN(x) + identity)` become one operation. The change is
    one of classes in place: parameters, buffers, state-dict names and shapes, hooks,
    `isinstance` and train/eval state stay as they were, so it goes with loaded weights,
    DDP, EMA and frozen stages. A block whose forward is not the code that was read, as
    one that somebody patched, stays as it is and is named. Models built from this
    project's configs are fused already; fusing again changes nothing.

    Args:
        model: any model; one without Group Norm is left alone.
        recompute: recompute the norms' outputs in backward instead of keeping them
            (`gn_det.ops.recompute_activations` around the model's `forward` and, where
            it has one, its `loss`): less memory for more time, the same gradients.
            `unfuse` is the way back.

    Returns:
        What was done to each Group Norm of the model, and why to some nothing.
    """
    load_hosts()
    chosen, reasons = _plan(model)
    # Nothing has been changed so far: no model is left half fused.
    for module in list(model.modules()):
        if type(module) is nn.GroupNorm and not _is_patched():
            module.__class__ = FusedGroupNorm
            setattr(module, _WAS_STOCK, True)
    for module, fusion in chosen.items():
        module.__class__ = fused_class(fusion, type(module))
    if recompute and not isinstance(model, Recomputing):
        model.__class__ = fused_class(recomputing(model), type(model))
    return _report(model, reasons)


def unfuse(model: nn.Module) -> None:
    """Give a model that `fuse` changed its stock modules back, in place.

    Norms that were built as `FusedGroupNorm` stay; those that were `nn.GroupNorm` are
    that again. Weights and everything else stay. A model without fused modules is left
    alone, and so is a module whose class somebody derived from a fused one, as torch's
    parametrizations do: take those off first.
    """
    for module in list(model.modules()):
        while is_fused_class(type(module)):
            module.__class__ = type(module)._stock
        if type(module) is FusedGroupNorm and module.__dict__.pop(_WAS_STOCK, False):
            module.__class__ = nn.GroupNorm


def _plan(
    model: nn.Module,
) -> tuple[dict[nn.Module, type[FusedModule]], dict[nn.Module, str]]:
    """The fusion of each module that gets one, and a reason for each other norm."""
    chosen: dict[nn.Module, type[FusedModule]] = {}
    spare: dict[nn.Module, type[FusedModule]] = {}
    reasons: dict[nn.Module, str] = {}
    if not any(map(_is_norm, model.modules())):
        return chosen, reasons
    for module in model.modules():
        if isinstance(module, FusedModule):
            continue
        fusion, reason = fusion_of(type(module))
        own = [m for m in module.children() if _is_norm(m)]
        if fusion is FusedModule or reason:
            reason = reason or (
                f'{type(module).__name__} is no block that fusion knows; '
                'gn_det.fusion.register teaches it'
            )
            if fusion is not FusedModule and not own:
                own = [m for m in module.modules() if _is_norm(m)]
            reasons |= dict.fromkeys(own, reason)
            continue
        kinds = {n: k for n, k in fusion.fused_norms(module) if _is_norm(n)}
        if fusion.always or any(kind in KINDS for kind in kinds.values()):
            chosen[module] = fusion
        else:
            spare[module] = fusion
            reasons |= kinds
    # A block around it may take in what it ends in.
    for module, fusion in reversed(spare.items()):
        last = fusion.last(module)
        if last is not None and (_is_norm(last) or last in chosen):
            chosen[module] = fusion
    return chosen, reasons


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.GroupNorm)


def _is_patched() -> bool:
    """Whether somebody put another forward on all of torch's Group Norms."""
    return nn.GroupNorm.forward.__module__ != nn.GroupNorm.__module__


def _report(model: nn.Module, reasons: dict[nn.Module, str]) -> FusionReport:
    report = FusionReport(outside=dict(_held(model)))
    found = dict(reasons)
    # A block around another knows more of what follows: the inner one comes first.
    for module in reversed(list(model.modules())):
        if isinstance(module, FusedModule):
            found.update(
                (norm, kind)
                for norm, kind in module.fused_norms(module)
                if kind in KINDS or found.get(norm) not in KINDS
            )
    for name, norm in model.named_modules():
        if not _is_norm(norm):
            continue
        what = found.get(norm, 'it stands alone')
        kind = type(norm)
        if kind is nn.GroupNorm:
            report.untouched[name] = 'the forward of nn.GroupNorm was replaced'
        elif not isinstance(norm, (*FUSED_NORMS, FusedNorm)):
            report.untouched[name] = (
                f'{kind.__name__} is a norm of its own kind, which is not taken over'
            )
        elif what not in KINDS:
            report.plain[name] = what
        elif kind not in FUSED_NORMS and not isinstance(norm, FusedNorm):
            report.plain[name] = (
                f'{kind.__name__} is a norm of its own kind, which takes nothing in'
            )
        else:
            getattr(report, what).append(name)
    return report


def _held(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Models that are attributes of a module but not among its children."""
    inside = set(model.modules())
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if not isinstance(value, nn.Module) or value in inside:
                continue
            parts = list(value.modules())
            norms = sum(map(_is_norm, parts))
            if norms and not any(isinstance(part, FusedModule) for part in parts):
                yield f'{path}.{name}'.lstrip('.'), norms

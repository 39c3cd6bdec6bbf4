"""Group Norm in the place of Batch Norm, in a built model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from gn_det.conversion.kinds import (
    has_activation,
    is_batch_norm,
    is_other_norm,
    reason_to_keep,
)
from gn_det.conversion.parts import check_parts, matches
from gn_det.conversion.report import KeptNorm, NormChange, NormReport
from gn_det.fusion import fuse
from gn_det.layers import FusedGroupNorm
from gn_det.layers.naming import group_norm_name

NORMS = ('FusedGN', 'GN')
_MOST_GROUPS = 32
_LEAST_CHANNELS_PER_GROUP = 2


def convert_model(
    model: nn.Module,
    norm: str,
    num_groups: int | None,
    parts: Sequence[str] | None,
    report: NormReport,
) -> nn.Module:
    """Convert a model in place; see `convert_norm`. A lone norm comes back new."""
    check_parts(parts, [name for name, _ in model.named_children()])
    found = list(_norms(model, parts, report))
    # All that can fail comes before the first one is replaced.
    groups = {
        id(layer): _groups(layer, place, num_groups) for place, _, _, layer in found
    }
    names = [_new_name(parent, name) for _, parent, name, _ in found]
    trained = {id(layer): _is_trained(model, place) for place, _, _, layer in found}
    replaced: dict[int, nn.GroupNorm] = {}
    for _, _, _, layer in found:
        if id(layer) not in replaced:
            new = _group_norm(layer, norm, groups[id(layer)])
            if trained[id(layer)]:
                new.requires_grad_()
            replaced[id(layer)] = new
    for (place, parent, name, layer), new_name in zip(found, names, strict=True):
        new = replaced[id(layer)]
        if parent is not None:
            _put(parent, name, new_name, new)
        report.changed.append(
            NormChange(
                place,
                f'{type(layer).__name__}({new.num_channels})',
                f'{new_name}: {type(new).__name__}({new.num_groups} groups)',
                new.num_groups,
            )
        )
    if found and found[0][1] is None:
        return replaced[id(found[0][3])]
    return model


def _norms(
    model: nn.Module, parts: Sequence[str] | None, report: NormReport
) -> Iterator[tuple[str, nn.Module | None, str, nn.Module]]:
    """Place, parent, name and layer of each Batch Norm; others go to the report."""
    if is_batch_norm(type(model)):
        if reason := _reason_to_keep(model):
            report.kept.append(KeptNorm('', type(model).__name__, reason))
        else:
            yield '', None, '', model
    for path, parent in list(model.named_modules()):
        # Unlike named_children, with a norm's second name too.
        for name, layer in parent._modules.items():
            place = f'{path}.{name}' if path else name
            if is_batch_norm(type(layer)):
                selected = matches(place.split('.')[0], parts)
                reason = _reason_to_keep(layer) if selected else 'of a part not chosen'
                if reason:
                    report.kept.append(KeptNorm(place, type(layer).__name__, reason))
                else:
                    yield place, parent, name, layer
            elif is_other_norm(layer):
                report.kept.append(
                    KeptNorm(place, type(layer).__name__, 'not a Batch Norm')
                )


def _reason_to_keep(layer: nn.Module) -> str | None:
    reason = reason_to_keep(type(layer))
    return reason or (None if _channels(layer) else 'not initialised')


def _channels(layer: nn.Module) -> int:
    # torchvision's FrozenBatchNorm2d does not note them.
    if hasattr(layer, 'num_features'):
        return layer.num_features
    return layer.weight.numel()


def _groups(layer: nn.Module, place: str, num_groups: int | None) -> int:
    channels = _channels(layer)
    if num_groups is None:
        most = max(1, min(_MOST_GROUPS, channels // _LEAST_CHANNELS_PER_GROUP))
        return next(n for n in range(most, 0, -1) if channels % n == 0)
    if channels % num_groups:
        raise ValueError(
            f'{place or "the norm"} has {channels} channels, which {num_groups} groups '
            'do not divide; give another num_groups, or none for what fits each norm'
        )
    return num_groups


def _is_trained(model: nn.Module, place: str) -> bool:
    """Whether the layer before a norm is trained, or else the next one around it."""
    while place:
        path, _, name = place.rpartition('.')
        # Unlike named_children, with a layer's second name too.
        beside = model.get_submodule(path)._modules
        at = list(beside).index(name)
        layers = list(beside.values())
        for layer in filter(None, [*layers[:at][::-1], *layers[at + 1 :]]):
            parameters = [
                parameter
                for part in layer.modules()
                if not is_batch_norm(type(part)) and not isinstance(part, nn.GroupNorm)
                for parameter in part.parameters(recurse=False)
            ]
            if parameters:
                return any(parameter.requires_grad for parameter in parameters)
        place = path
    return False


def _group_norm(layer: nn.Module, norm: str, num_groups: int) -> nn.GroupNorm:
    """A Group Norm that starts from a Batch Norm's weight and bias."""
    weight, bias = layer.weight, layer.bias
    channels, affine = _channels(layer), weight is not None
    if has_activation(type(layer)):
        new = _with_activation(layer, norm, num_groups)
    elif norm == 'FusedGN':
        new = FusedGroupNorm(channels, num_groups, layer.eps, affine)
    else:
        new = nn.GroupNorm(num_groups, channels, layer.eps, affine)
    if bias is None:
        new.bias = None
    if weight is not None:
        new.to(device=weight.device, dtype=weight.dtype)
        with torch.no_grad():
            for parameter, value in ((new.weight, weight), (new.bias, bias)):
                if value is None:
                    continue
                if value.device.type != 'meta':
                    parameter.copy_(value)
                # Buffers of a FrozenBatchNorm2d become parameters like any other.
                if isinstance(value, nn.Parameter):
                    parameter.requires_grad_(value.requires_grad)
    return new.train(layer.training)


def _with_activation(layer: nn.Module, norm: str, num_groups: int) -> nn.GroupNorm:
    """timm's Group Norm with the dropout and the activation of its Batch Norm."""
    # The layer is one of timm's, so it is there.
    from timm.layers import GroupNormAct

    affine = layer.weight is not None
    new = GroupNormAct(
        _channels(layer), num_groups, layer.eps, affine=affine, apply_act=False
    )
    new.drop, new.act = layer.drop, layer.act
    if norm == 'FusedGN':
        fuse(new)
    return new


def _name_records(parent: nn.Module | None, name: str) -> list[str]:
    """The attributes of a block that hold the name of its norm.

    mmcv's ConvModule keeps `norm_name`, mmdet's blocks `norm1_name` and so on.
    """
    return [
        key
        for key, value in ({} if parent is None else vars(parent)).items()
        if value == name and 'norm' in key and key.endswith('_name')
    ]


def _new_name(parent: nn.Module | None, name: str) -> str:
    """The name of the new norm: another one where the parent records the name."""
    new_name = group_norm_name(name) if _name_records(parent, name) else name
    if new_name != name and hasattr(parent, new_name):
        raise ValueError(f'{type(parent).__name__} has a {new_name} beside its {name}')
    return new_name


def _put(parent: nn.Module, name: str, new_name: str, new: nn.Module) -> None:
    """Put a norm in its place."""
    # The order of modules is the order of the state dict.
    modules = [
        (new_name, new) if key == name else (key, module)
        for key, module in parent._modules.items()
    ]
    parent._modules.clear()
    parent._modules.update(modules)
    for key in _name_records(parent, name):
        setattr(parent, key, new_name)
    # ConvModule's short cut through the statistics of a Batch Norm in eval mode.
    if getattr(parent, 'efficient_conv_bn_eval_forward', None) is not None:
        parent.efficient_conv_bn_eval_forward = None

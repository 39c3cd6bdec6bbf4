"""Group Norm in the place of Batch Norm, in a config or in a built model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar, cast

from mmcv.cnn import build_norm_layer
from mmengine.config import Config
from torch import nn

from gn_det.models.convert_norm.config import convert_cfg, import_plugin
from gn_det.models.convert_norm.model import convert_model
from gn_det.models.convert_norm.report import KeptNorm, NormChange, NormReport

__all__ = ['KeptNorm', 'NormChange', 'NormReport', 'convert_norm']

_Target = TypeVar('_Target', bound=nn.Module | Config | dict)


def convert_norm(
    model_or_cfg: _Target,
    norm: str = 'FusedGN',
    num_groups: int = 32,
    parts: Sequence[str] | None = None,
    indivisible: str = 'error',
) -> tuple[_Target, NormReport]:
    """Replace Batch Norm (also synchronised, also frozen) by Group Norm.

    In a model each norm is replaced in place. Weight and bias are copied and keep
    their `requires_grad`; running statistics are dropped. Where a block of mmcv or
    mmdet records the name of its norm, `bn1` becomes `gn1`, so that the names of the
    state dict are those of `MODELS.build(convert_norm(cfg)[0].model)`; any other name
    stays, because the code around it calls it so. A class of Batch Norm with a
    `forward` of its own may do more (an activation), so it stays and is reported.

    In a config every `norm_cfg` of the model is replaced, and one is written where the
    default of a module is Batch Norm. The config that is given stays as it is. Batch
    Norms that a module builds without a setting cannot be seen there.

    Args:
        model_or_cfg: any `nn.Module`, a whole config, or the config of a model.
        norm: the norm's name in mmengine's registry, `FusedGN` or `GN`.
        num_groups: G of every new norm.
        parts: names of children to convert, such as `rpn_head`, or `'head'` for all
            whose name ends so. Everything if None.
        indivisible: where G does not divide a norm's channels: 'error', or 'nearest'
            for the divisor nearest to G (a model only; a config does not know the
            channels, so building it fails there).

    Returns:
        The model or the new config, and what was changed and what not.

    Raises:
        TypeError: for what is neither model nor config, for `parts` that are no list,
            and for a config whose `model` or `custom_imports` are of a wrong kind.
        ValueError: for an unknown `norm` or part, for a config without a model, or if
            G does not divide the channels of a norm. Nothing has been changed then.
    """
    if indivisible not in ('error', 'nearest'):
        raise ValueError(f"indivisible: expected 'error' or 'nearest': {indivisible!r}")
    if not isinstance(model_or_cfg, (nn.Module, Config, dict)):
        raise TypeError(
            f'{model_or_cfg!r} is neither a model nor a config; load a config with '
            'mmengine.Config.fromfile'
        )
    if isinstance(parts, str):
        raise TypeError(f'parts: expected a list of names, such as [{parts!r}]')
    _check_norm(norm, num_groups)
    report = NormReport()
    if isinstance(model_or_cfg, nn.Module):
        model = convert_model(
            model_or_cfg, norm, num_groups, parts, indivisible, report
        )
        return cast(_Target, model), report
    cfg = copy.deepcopy(model_or_cfg)
    whole = 'model' in cfg and 'type' not in cfg
    if isinstance(cfg, Config) and not whole:
        raise ValueError('the config has no model; give that of a model as a dict')
    convert_cfg(cfg['model'] if whole else cfg, norm, num_groups, parts, report)
    if whole and norm == 'FusedGN':
        import_plugin(cfg)
    return cfg, report


def _check_norm(norm: str, num_groups: int) -> None:
    if type(num_groups) is not int or num_groups < 1:
        raise ValueError(f'num_groups must be a positive integer, got {num_groups!r}')
    try:
        _, layer = build_norm_layer(dict(type=norm, num_groups=1), 1)
    except (KeyError, TypeError):
        layer = None
    if not isinstance(layer, nn.GroupNorm):
        raise ValueError(f"norm: expected 'FusedGN' or 'GN', got {norm!r}")

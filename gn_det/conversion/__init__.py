"""Group Norm in the place of Batch Norm, in a built model or in a config."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from torch import nn

from gn_det.conversion.model import NORMS, convert_model
from gn_det.conversion.report import KeptNorm, NormChange, NormReport

__all__ = ['KeptNorm', 'NormChange', 'NormReport', 'convert_norm']

_Target = TypeVar('_Target')


def convert_norm(
    model_or_cfg: _Target,
    norm: str = 'FusedGN',
    num_groups: int | None = None,
    parts: Sequence[str] | None = None,
) -> tuple[_Target, NormReport]:
    """Replace Batch Norm (also synchronised, also frozen) by Group Norm.

    In a model each norm is replaced in place. Weight and bias are copied; running
    statistics are dropped. A frozen norm is trainable afterwards, because Group Norm
    has to be trained, unless the layers around it are frozen too. Where a block of mmcv
    or mmdet records the name of its norm, `bn1` becomes `gn1`, so that the names of the
    state dict are those of a model built with a `norm_cfg` of Group Norm; any other
    name stays, because the code around it calls it so. What stays Batch Norm is
    reported: a class with a `forward` of its own, which may do more (an activation),
    and other kinds of norm.

    A config, whole or of a model, gets two settings: its model is built as before and
    then converted, `type='GroupNormModel', of=<the type it had>, norm=dict(…)`. That
    reaches norms by default and norms without a setting, and a dump of the config says
    it. Pretrained weights that hold Batch Norm are taken out, stages that were frozen
    with them are trained, and each is named in the report. The config that is given
    stays as it is. The model is built once for the report, where it can be without
    memory (torch's `meta` device).

    Args:
        model_or_cfg: any `nn.Module`, a whole config, or the config of a model.
        norm: `FusedGN`, the project's layer, or `GN`, torch's.
        num_groups: G of every new norm. If None, for each the greatest number up to 32
            that divides its channels and leaves two in a group: one alone would be
            Instance Norm, which the paper has 4 points of ImageNet error behind Group
            Norm (arXiv 1803.08494, table 3), and two are what the published GN
            backbones have where they are narrowest, 64 channels in 32 groups. A prime
            number of channels is one group.
        parts: names of children to convert, such as `rpn_head`, or `'head'` for all
            whose name ends so. Everything if None.

    Returns:
        The model or the new config, and what was changed and what not.

    Raises:
        TypeError: for what is neither model nor config, for `parts` that are no list,
            and for a config whose `model` or `custom_imports` are of a wrong kind.
        ValueError: for an unknown `norm` or part, for a config without a model, or if
            `num_groups` does not divide the channels of a norm. Nothing has been
            changed then.
    """
    if norm not in NORMS:
        raise ValueError(f"norm: expected 'FusedGN' or 'GN', got {norm!r}")
    if num_groups is not None and (type(num_groups) is not int or num_groups < 1):
        raise ValueError(f'num_groups must be a positive integer, got {num_groups!r}')
    if isinstance(parts, str):
        raise TypeError(f'parts: expected a list of names, such as [{parts!r}]')
    report = NormReport()
    target: Any = model_or_cfg
    if isinstance(target, nn.Module):
        target = convert_model(target, norm, num_groups, parts, report)
        return target, report
    if not (isinstance(target, Mapping) or type(target).__name__ == 'Config'):
        raise TypeError(
            f'{target!r} is neither a model nor a config; load a config with '
            'mmengine.Config.fromfile'
        )
    # Models need no mmengine.
    from gn_det.conversion.config import convert_cfg

    target = copy.deepcopy(target)
    convert_cfg(target, norm, num_groups, parts, report)
    return target, report

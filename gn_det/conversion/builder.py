"""`type='GroupNormModel'`: any model, converted and fused as it is built."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import nn

from gn_det.conversion import convert_norm
from gn_det.conversion.pretrained import (
    checkpoints_of,
    instead,
    is_public,
    says_group_norm,
)
from gn_det.conversion.report import NormReport
from gn_det.fusion import fuse as fuse_norms

_NEEDS_PROCESS_GROUP = ('MMSyncBN', 'mmcv.MMSyncBN', 'mmengine.MMSyncBN')


def group_norm_model(
    of: str | type | None = None,
    norm: Mapping[str, Any] | None = None,
    fuse: bool = False,
    recompute: bool = False,
    **settings: Any,
) -> nn.Module:
    """Build a model of any host, replace its Batch Norms, and fuse it.

    Registered as `GroupNormModel`. A config gets it by two lines, whatever it has as a
    base: `model = dict(type='GroupNormModel', of='FasterRCNN', norm=dict(), fuse=True)`
    and the import of `gn_det`. What comes back is an instance of the type in `of`.

    Args:
        of: the type that the model has without this.
        norm: arguments of `gn_det.convert_norm`, with its `norm` as the `type`; `{}`
            for its defaults. None leaves the norms.
        fuse: let the Group Norms take in what follows them (`gn_det.fuse`).
        recompute: with `fuse`, recompute the norms' outputs in backward.
        **settings: the model's own.

    Raises:
        ValueError: if `of` is missing, if there is neither `norm` nor `fuse`, and if
            there is no norm for what is asked: nothing is left out in silence.
    """
    if of is None:
        raise ValueError("of: name the type of the model, such as of='FasterRCNN'")
    if norm is None and not fuse:
        raise ValueError('give norm=dict() to replace Batch Norm, fuse=True, or both')
    if norm is not None and norm.get('parts') is None:
        settings = without_process_group(settings)
    model = MODELS.build(dict(type=of, **settings))
    if norm is not None:
        given = dict(norm)
        model, report = convert_norm(model, given.pop('type', 'FusedGN'), **given)
        if not report.changed:
            raise ValueError(f'norm: {report.summary()}; leave norm out')
        print_log(report.summary(), logger='current')
        _name_unfit_weights(model, report)
    if fuse:
        fused = fuse_norms(model, recompute=recompute)
        if not len(fused):
            raise ValueError(
                'fuse: the model has no Group Norm; norm=dict() puts it in the place '
                'of Batch Norm'
            )
        print_log(str(fused).splitlines()[0], logger='current')
    return model


def without_process_group(settings: Any) -> Any:
    """Settings with BN for mmcv's synchronised one, which one process cannot build."""
    if isinstance(settings, Mapping):
        changed = {k: without_process_group(v) for k, v in settings.items()}
        if changed.get('type') in _NEEDS_PROCESS_GROUP:
            changed['type'] = 'BN'
        return type(settings)(changed)
    if isinstance(settings, (list, tuple)):
        return type(settings)(map(without_process_group, settings))
    return settings


def _name_unfit_weights(model: nn.Module, report: NormReport) -> None:
    places = [change.place for change in report.changed]
    for name, module in model.named_modules():
        prefix = f'{name}.' if name else ''
        if not any(place.startswith(prefix) for place in places):
            continue
        for checkpoint in checkpoints_of(getattr(module, 'init_cfg', None)):
            if is_public(checkpoint) and not says_group_norm(checkpoint):
                print_log(
                    f'{prefix}init_cfg: {checkpoint} does not fit Group Norm; set it '
                    f'to None, and leave frozen_stages out: {instead(module)}',
                    logger='current',
                    level=logging.WARNING,
                )

"""`--norm` and `--fuse`: what they make of a config, and what is said about it."""

from __future__ import annotations

import os

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import print_log

from gn_det.conversion import convert_norm
from gn_det.conversion.config import fuse_cfg
from gn_det.models import FusedDetector
from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.building import name_wrong_settings, registered


def with_group_norm(
    cfg: Config, norm: str | None = None, fuse: bool = False, trains: bool = False
) -> Config:
    """A config whose model gets Group Norm (`norm='gn'`), is fused, or both.

    The config says so itself from then on: a dump of it builds the same model. Weights
    that no longer fit are left out, which is said if the model is to be trained.

    Raises:
        UserError: if the model cannot be built, has no Batch Norm to replace, or no
            Group Norm to fuse.
    """
    if norm is not None:
        with name_wrong_settings(cfg):
            cfg, report = convert_norm(cfg)
        if not report.changed:
            raise UserError(
                f'--norm {norm}: the model of {cfg.filename} has no Batch Norm that '
                f'could be replaced ({report.summary()}); leave --norm out'
            )
        for note in report.notes if trains else ():
            _say(f'--norm {norm}: {note}')
    if fuse and not _fuses_itself(cfg):
        with name_wrong_settings(cfg):
            count = fuse_cfg(cfg)
        if not count:
            raise UserError(
                f'--fuse: the model of {cfg.filename} has no Group Norm; --norm gn '
                'puts it in the place of Batch Norm, where there is any'
            )
    return cfg


def _fuses_itself(cfg: Config) -> bool:
    kind = registered(MODELS, cfg.model.get('type'))
    return isinstance(kind, type) and issubclass(kind, FusedDetector)


def _say(text: str) -> None:
    if os.environ.get('RANK', '0') == '0':
        print_log(text)

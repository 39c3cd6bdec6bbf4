"""From the flags of `gn-det train` and `gn-det test` to a config."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from mmengine.config import Config, DictAction

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.config import load_config
from gn_det.workbench.inputs.group_norm import with_group_norm
from gn_det.workbench.loading.files import trust_local_files
from gn_det.workbench.runtime.runner import enable_channels_last


def run_config(args: Namespace, trains: bool = False) -> Config:
    """Load the config of a run, with what the flags of both commands make of it.

    Raises:
        UserError: for a wrong config, an option that does not fit it, a detector that
            has no channels-last setting, and a model without the norms that `--norm`
            or `--fuse` are about.
    """
    if args.trust:
        trust_local_files()
    # mmengine looks for the local rank there.
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args.config, read_options(args.cfg_options), args.work_dir)
    cfg.launcher = args.launcher
    if args.skip_broken_images:
        cfg.skip_broken_images = True
    if args.channels_last:
        enable_channels_last(cfg)
    return with_group_norm(cfg, args.norm, args.fuse, trains)


def read_options(pairs: Sequence[str] | None) -> dict[str, Any]:
    """`KEY=VALUE` pairs of `--cfg-options`, read as mmengine reads them.

    mmengine drops the spaces of a value and splits it at commas. `data_root`, also that
    of one dataset, is a path and is taken as it is.

    Raises:
        UserError: for what is no such pair.
    """
    roots, others = {}, []
    for pair in pairs or ():
        key, equals, value = pair.partition('=')
        if not equals:
            raise UserError(f'--cfg-options: expected KEY=VALUE, got {pair!r}')
        if key.rpartition('.')[2] == 'data_root' and value != 'None':
            roots[key] = value
        else:
            others.append(pair)
    read = Namespace()
    try:
        DictAction(['--cfg-options'], 'options', nargs='+')(None, read, others)
    except AssertionError as error:
        raise UserError(f'--cfg-options: {error}') from error
    return read.options | roots

"""Distributed runs where there is no GPU: gloo on the CPU.

mmengine's launcher selects a CUDA device before it does anything else. On a machine
without one the process group is opened here, and the Runner, which leaves an open
group alone, goes on as usual.
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from mmengine.config import Config

from gn_det.runtime.errors import UserError


def prepare_distributed(cfg: Config) -> None:
    """Make a config with `launcher='pytorch'` run on the machine as it is.

    Raises:
        UserError: if the process was not started by torchrun.
    """
    if cfg.launcher != 'pytorch':
        return
    missing = [name for name in ('RANK', 'WORLD_SIZE') if name not in os.environ]
    if missing:
        raise UserError(
            f'--launcher pytorch without {" and ".join(missing)} in the environment; '
            'start it with tools/dist_train.sh, tools/dist_test.sh or torchrun'
        )
    if torch.cuda.is_available():
        return
    cfg.merge_from_dict({'env_cfg.dist_cfg.backend': 'gloo'})
    dist.init_process_group('gloo')
    # The Runner's default wrapper names a CUDA device; this one names none.
    if cfg.get('model_wrapper_cfg') is None:
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )

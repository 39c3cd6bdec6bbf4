"""Distributed runs: gloo where there is no GPU, and an orderly end everywhere.

mmengine's launcher selects a CUDA device before it does anything else. On a machine
without one the process group is opened here, and the Runner, which leaves an open
group alone, goes on as usual.
"""

from __future__ import annotations

import gc
import os

import torch
import torch.distributed as dist
from mmengine.config import Config

from gn_det.workbench.errors import UserError


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


def close_distributed() -> None:
    """Close the process group: the last thing a rank does when its run went well.

    A thread of the group that still holds the last collective lets go of its tensors
    while the interpreter is torn down, and that aborts a process whose work is done
    (https://github.com/pytorch/pytorch/pull/179291). The threads end with the last
    user of the group, so nothing may hold the Runner any more.
    """
    if not dist.is_initialized():
        return
    dist.destroy_process_group()
    # The Runner, its model and the group refer to each other.
    gc.collect()

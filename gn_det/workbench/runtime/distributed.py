"""Distributed runs: gloo where there is no GPU, and an orderly end everywhere.

mmengine's launcher selects a CUDA device before it does anything else. On a machine
without one the process group is opened here, and the Runner, which leaves an open
group alone, goes on as usual.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from mmengine.config import Config

from gn_det.workbench.errors import UserError

TIMEOUT_S = 1800
# Words of gloo and NCCL.
_LOST = re.compile(r'closed by peer|reset by peer|Broken pipe|remote process exited')
_SILENT = re.compile(r'timed out|timeout', re.IGNORECASE)

# By launcher: where the number of processes stands, and the number of this one.
_PROCESSES = {
    'pytorch': ('WORLD_SIZE', 'RANK'),
    'slurm': ('SLURM_NTASKS', 'SLURM_PROCID'),
    'mpi': ('OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_RANK'),
}


class LostProcess(UserError):
    """No process of a run goes on when one is lost: the first may be the one."""

    exit_code = 1
    on_any_rank = True


def processes(cfg: Config) -> tuple[int, int]:
    """How many there are, and which this is: before their group is opened."""
    launcher = cfg.get('launcher', 'none')
    if launcher not in _PROCESSES:
        return 1, 0
    count, rank = _PROCESSES[launcher]
    return int(os.environ.get(count, 1)), int(os.environ.get(rank, 0))


def is_first(cfg: Config) -> bool:
    """Whether this is the process that speaks and writes for all."""
    return processes(cfg)[1] == 0


def check_launcher(cfg: Config) -> None:
    """See that a process of `launcher='pytorch'` was started by torchrun.

    Raises:
        UserError: if it was not.
    """
    if cfg.launcher != 'pytorch':
        return
    missing = [name for name in ('RANK', 'WORLD_SIZE') if name not in os.environ]
    if missing:
        raise UserError(
            f'--launcher pytorch without {" and ".join(missing)} in the environment; '
            'start it with torchrun --nproc-per-node GPUS -m gn_det …'
        )


def prepare_distributed(cfg: Config) -> None:
    """Make a config with a launcher run on the machine as it is.

    A process that does not answer ends the run after `env_cfg.dist_cfg.timeout`
    seconds, by default `TIMEOUT_S`.
    """
    if cfg.launcher == 'none':
        return
    timeout = timeout_s(cfg)
    cfg.merge_from_dict({'env_cfg.dist_cfg.timeout': timeout})
    if cfg.launcher != 'pytorch' or torch.cuda.is_available():
        return
    cfg.merge_from_dict({'env_cfg.dist_cfg.backend': 'gloo'})
    dist.init_process_group('gloo', timeout=timedelta(seconds=timeout))
    # The Runner's default wrapper names a CUDA device; this one names none.
    if cfg.get('model_wrapper_cfg') is None:
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )


def timeout_s(cfg: Config) -> float:
    """How long a process of the run may leave the others waiting, in seconds."""
    settings = (cfg.get('env_cfg') or {}).get('dist_cfg') or {}
    return settings.get('timeout', TIMEOUT_S)


@contextlib.contextmanager
def name_lost_process(cfg: Config) -> Iterator[None]:
    """Say in one line that another process of the run hangs or has ended.

    Raises:
        LostProcess: with this line.
    """
    try:
        yield
    except RuntimeError as error:
        if _LOST.search(str(error)):
            problem = 'has ended; see what it said'
        elif _SILENT.search(str(error)):
            problem = (
                f'has not answered for {timeout_s(cfg):g} s '
                '(env_cfg.dist_cfg.timeout); it hangs, or its machine cannot be reached'
            )
        else:
            raise
        raise LostProcess(
            f'another process of the run {problem}; --resume goes on from the last '
            'checkpoint'
        ) from error


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

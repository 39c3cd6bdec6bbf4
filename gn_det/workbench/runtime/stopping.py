"""Ctrl-C, SIGTERM and SIGHUP end a training after the step it is at, and save it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from mmengine.dist import get_world_size
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner

from gn_det.workbench.runtime.distributed import timeout_s

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOPPED_CHECKPOINT = 'interrupted.pth'
# A signal within this time is the same one, on another way.
AGAIN_S = 2.0


class Stopped(BaseException):
    """Training has stopped as a signal asked, and can go on from a checkpoint.

    No Exception: what mends failures of a step is not to go on.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class StopRequest:
    """The signal that has asked this process to stop, or 0."""

    def __init__(self) -> None:
        self.signum = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Note the first signal; one that comes again later ends the process."""
        before = {n: signal.getsignal(n) or signal.SIG_DFL for n in SIGNALS}
        # torchrun passes on what a terminal or Slurm has sent to all processes.
        last = 0.0

        def note(number: int, _: Any) -> None:
            nonlocal last
            now = time.monotonic()
            if not self.signum:
                self.signum, last = number, now
            elif now > last + AGAIN_S:
                signal.signal(number, before[number])
                signal.raise_signal(number)

        try:
            for number in SIGNALS:
                # Left alone as by nohup, or by a shell for its background jobs.
                if before[number] != signal.SIG_IGN:
                    signal.signal(number, note)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class StopHook(Hook):
    """End a training in the way that all its processes agree on.

    After the step in which a signal came to one of them, all stop; the first writes
    `interrupted.pth`. In a validation this is written at once. One process stops there,
    several after it: they wait for each other's results.
    """

    # After the hooks that belong to the step.
    priority = 'LOWEST'

    def __init__(self, request: StopRequest) -> None:
        self.request = request
        self._group: dist.ProcessGroup | None = None
        self._saved_at = -1

    def before_train(self, runner: Runner) -> None:
        """Open a group whose answer needs no GPU to be waited for."""
        if get_world_size() > 1 and dist.get_backend() != 'gloo':
            timeout = timedelta(seconds=timeout_s(runner.cfg))
            self._group = dist.new_group(backend='gloo', timeout=timeout)

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Stop if a process was asked to."""
        signum = self._agreed()
        # What gradients have been collected so far is in no checkpoint.
        if signum and _has_stepped(runner):
            self._stop(runner, signum, runner.iter + 1)

    def after_val_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Save the place, and stop there if nobody waits for this process."""
        if not self.request.signum or not _is_training(runner):
            return
        averages = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
        # They have put themselves in the place of the weights for the validation.
        for hook in averages:
            hook.after_val_epoch(runner)
        if get_world_size() == 1:
            self._stop(runner, self.request.signum, runner.iter)
        self._save(runner, runner.iter)
        for hook in averages:
            hook.before_val_epoch(runner)

    def after_val_epoch(self, runner: Runner, metrics: Any = None) -> None:
        """Stop if a process was asked to meanwhile."""
        if _is_training(runner) and (signum := self._agreed()):
            self._stop(runner, signum, runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Remove the checkpoint of an earlier stop: a later one is there."""
        for hook in runner.hooks:
            last = getattr(hook, 'last_ckpt', None)
            if last is not None and os.path.basename(last) != STOPPED_CHECKPOINT:
                with contextlib.suppress(OSError):
                    os.remove(os.path.join(_folder(runner), STOPPED_CHECKPOINT))

    def _agreed(self) -> int:
        signum = self.request.signum
        if get_world_size() > 1:
            asked = torch.tensor(signum)
            dist.all_reduce(asked, dist.ReduceOp.MAX, group=self._group)
            signum = int(asked)
        return signum

    def _stop(self, runner: Runner, signum: int, iteration: int) -> None:
        self._save(runner, iteration)
        runner.logger.info(
            f'Stopped by {signal.Signals(signum).name} after iteration {iteration}; '
            '--resume goes on from there'
        )
        raise Stopped(signum)

    def _save(self, runner: Runner, iteration: int) -> None:
        if self._saved_at != iteration:
            meta = dict(epoch=runner.epoch, iter=iteration)
            runner.save_checkpoint(_folder(runner), STOPPED_CHECKPOINT, meta=meta)
            self._saved_at = iteration


def _is_training(runner: Runner) -> bool:
    return runner.message_hub.get_info('max_iters') is not None


def _has_stepped(runner: Runner) -> bool:
    wrapper = runner.optim_wrapper
    several = isinstance(wrapper, OptimWrapperDict)
    return all(w.should_update() for w in (wrapper.values() if several else [wrapper]))


def _folder(runner: Runner) -> str:
    hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    return str(hooks[0].out_dir) if hooks else runner.work_dir


def outlive_signals(worker: int, then: Any = None) -> None:
    """Let a data worker end with its training, and not by a signal to all processes.

    A terminal and Slurm signal the workers too, whose death would fail the step.

    Args:
        worker: its number, given by torch.
        then: what else is to be done in a new worker, called with the number.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Threads that are started from here on inherit it.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    parent = os.getppid()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if then is not None:
        then(worker)


def _end_with(parent: int) -> None:
    # The training ends a worker that hangs by the same signal. A training that was
    # killed leaves workers that wait for ever to hand over a batch.
    sender = None
    while sender != parent and os.getppid() == parent:
        received = signal.sigtimedwait([signal.SIGTERM], 1)
        sender = received and received.si_pid
    os._exit(0)

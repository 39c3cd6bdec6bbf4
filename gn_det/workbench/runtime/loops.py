"""mmengine's training loops, able to go on in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from gn_det.workbench.errors import UserError
from gn_det.workbench.runtime.repeatable import batches_from, repeatable, seed_step


class ResumableEpochLoop(EpochBasedTrainLoop):
    """Training by epochs whose every step depends on its place alone.

    `batch` is the number of batches of the current epoch that have been trained.
    """

    def __init__(self, runner: Runner, dataloader: Any, **settings: Any) -> None:
        super().__init__(runner, repeatable(dataloader, runner.seed), **settings)
        self.batch = 0

    def begin_at(self, meta: Mapping[str, Any]) -> None:
        """Go on where a checkpoint was written.

        Raises:
            UserError: if that was within an epoch of another number of batches.
        """
        batch, length = meta.get('batch', 0), meta.get('epoch_length')
        if batch and length != len(self.dataloader):
            raise UserError(
                f'the checkpoint was written after {batch} of {length} batches of an '
                f'epoch, and here an epoch has {len(self.dataloader)}; resume with as '
                'many images a step as before, or from a checkpoint of a whole epoch'
            )
        self.batch = batch

    def validation_is_due(self) -> bool:
        """Whether a validation belongs between the last step and the next."""
        if self._epoch == 0 or self.batch or self.runner.val_loop is None:
            return False
        self._decide_current_val_interval()
        return self._epoch >= self.val_begin and (
            self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs
        )

    def run_epoch(self) -> None:
        """Train the rest of the epoch."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        batches = batches_from(self.dataloader, self._epoch, self.batch)
        for idx, data_batch in enumerate(batches, self.batch):
            self.run_iter(idx, data_batch)
        self.batch = 0
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Train one batch."""
        seed_step(self.runner.seed, self._iter)
        # For what is saved by a hook after the step.
        self.batch = idx + 1
        super().run_iter(idx, data_batch)


class ResumableIterLoop(IterBasedTrainLoop):
    """Training by iterations whose every step depends on its place alone."""

    def __init__(self, runner: Runner, dataloader: Any, **settings: Any) -> None:
        dataloader = repeatable(dataloader, runner.seed, endless=True)
        super().__init__(runner, dataloader, **settings)
        # mmengine 0.10.7 has started the workers of one.
        del self.dataloader_iterator

    def begin_at(self, meta: Mapping[str, Any]) -> None:
        """Go on where a checkpoint was written: its iteration says it all."""

    def validation_is_due(self) -> bool:
        """Whether a validation belongs between the last step and the next."""
        if self._iter == 0 or self.runner.val_loop is None:
            return False
        self._decide_current_val_interval()
        return self._iter >= self.val_begin and (
            self._iter % self.val_interval == 0 or self._iter == self._max_iters
        )

    def run(self) -> torch.nn.Module:
        """Train to the last iteration."""
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        batches = batches_from(self.dataloader, 0, self._iter)
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(batches))
            if self.validation_is_due():
                self.runner.val_loop.run()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_iter(self, data_batch: Any) -> None:
        """Train one batch."""
        seed_step(self.runner.seed, self._iter)
        super().run_iter(data_batch)


_RESUMABLE = {
    'EpochBasedTrainLoop': ResumableEpochLoop,
    'IterBasedTrainLoop': ResumableIterLoop,
}
RESUMABLE_LOOPS = tuple(_RESUMABLE.values())


def resumable(loop: Any) -> Any:
    """The config of a train loop with mmengine's own types replaced by those here."""
    if not isinstance(loop, Mapping):
        return loop
    settings = dict(loop)
    if 'type' not in settings:
        by_epoch = settings.pop('by_epoch', True)
        settings['type'] = 'EpochBasedTrainLoop' if by_epoch else 'IterBasedTrainLoop'
    name = getattr(settings['type'], '__name__', str(settings['type']))
    settings['type'] = _RESUMABLE.get(name.rpartition('.')[2], settings['type'])
    return settings

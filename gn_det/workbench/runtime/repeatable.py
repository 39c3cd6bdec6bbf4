"""Batches whose random draws depend on the seed and their place in the training alone.

mmengine seeds a process once, and what is drawn then depends on all that was drawn
before: a resumed run sees other crops than one that was never stopped. Here every
sample is made from a seed of its own, so that neither a restart nor the number of
workers changes it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from itertools import count, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.registry import DATA_SAMPLERS, DATASETS
from torch.utils.data import BatchSampler, DataLoader, Sampler

# What is drawn for a sample is not drawn for a step again.
_SAMPLE, _STEP = 0, 1


class Draw(NamedTuple):
    """A sample to take, and the seed of all that is drawn while it is made."""

    index: Any
    seed: int


class SeededDataset:
    """A dataset that makes every `Draw` from its seed.

    Args:
        dataset: config of the dataset.
    """

    def __init__(self, dataset: dict[str, Any]) -> None:
        self.dataset = DATASETS.build(dataset)

    def __getitem__(self, draw: Draw | int) -> Any:
        if isinstance(draw, Draw):
            _seed_all(draw.seed)
            return self.dataset[draw.index]
        return self.dataset[draw]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        # A copy that is being made has nothing yet.
        if name == 'dataset' or name.startswith('__'):
            raise AttributeError(name)
        return getattr(self.dataset, name)


class PlacedBatchSampler(Sampler):
    """Batches of `Draw`s that can begin anywhere without loading what comes before.

    Args:
        sampler: of indices.
        batch_size: images of one process in a step.
        seed: of the run.
        inner: config of another batch sampler than torch's.
        drop_last: of torch's: leave out a smaller batch at the end.
        endless: begin again after the last batch, as training by iterations does.
    """

    def __init__(
        self,
        sampler: Sampler,
        batch_size: int,
        seed: int,
        inner: dict[str, Any] | None = None,
        drop_last: bool = False,
        endless: bool = False,
    ) -> None:
        if inner is None:
            self.batches = BatchSampler(sampler, batch_size, drop_last)
        else:
            settings = dict(sampler=sampler, batch_size=batch_size)
            self.batches = DATA_SAMPLERS.build(inner, default_args=settings)
        # mmengine's hook sets the epoch of it.
        self.sampler = sampler
        self.batch_size = batch_size
        self.seed = seed
        self.endless = endless
        self.epoch = self.start = 0

    def begin_at(self, epoch: int, start: int) -> None:
        """Let the next pass be that of `epoch`, without its first `start` batches."""
        self.epoch, self.start = epoch, start

    def __iter__(self) -> Iterator[list[Draw]]:
        """Lists of `Draw`s; the place of a batch counts from the epoch's first."""
        place = (self.seed, get_rank(), _SAMPLE, self.epoch)
        batches = self._endless() if self.endless else iter(self.batches)
        for number, batch in enumerate(islice(batches, self.start, None), self.start):
            yield [
                Draw(index, _seed(*place, number, position))
                for position, index in enumerate(batch)
            ]

    def _endless(self) -> Iterator[list[int]]:
        for epoch in count():
            # As mmengine does when a loader has come to its end.
            if hasattr(self.sampler, 'set_epoch'):
                self.sampler.set_epoch(epoch)
            batch = None
            for batch in self.batches:
                yield batch
            if batch is None:
                return

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        return len(self.batches)


def repeatable(dataloader: Any, seed: int, endless: bool = False) -> Any:
    """The config of a train dataloader whose batches are drawn so; others as they are.

    Args:
        dataloader: config with `batch_size`, or a `DataLoader`.
        seed: of the run.
        endless: see `PlacedBatchSampler`.
    """
    if not isinstance(dataloader, Mapping):
        return dataloader
    settings = dict(dataloader)
    settings['dataset'] = dict(type=SeededDataset, dataset=settings['dataset'])
    settings['batch_sampler'] = dict(
        type=PlacedBatchSampler,
        seed=seed,
        inner=settings.get('batch_sampler'),
        drop_last=settings.pop('drop_last', False),
        endless=endless,
    )
    return settings


def batches_from(dataloader: DataLoader, epoch: int, start: int) -> Iterator[Any]:
    """The batches of an epoch but for its first `start`."""
    if isinstance(dataloader.batch_sampler, PlacedBatchSampler):
        dataloader.batch_sampler.begin_at(epoch, start)
        return iter(dataloader)
    return islice(iter(dataloader), start, None)


def seed_step(seed: int, iteration: int) -> None:
    """Seed what a training step draws: its place is the iteration, and the process."""
    seed = _seed(seed, get_rank(), _STEP, iteration)
    _seed_all(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)


def _seed(*place: int) -> int:
    return int(np.random.SeedSequence(place).generate_state(1)[0])


def _seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)

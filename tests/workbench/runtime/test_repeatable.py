"""Where a sample stands in the training decides what is drawn for it."""

from __future__ import annotations

import random
from itertools import islice

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch.utils.data import Dataset

from gn_det.workbench.runtime.repeatable import batches_from, repeatable, seed_step


@DATASETS.register_module()
class Draws(Dataset):
    """A sample is its index and what each generator gives."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return index, random.random(), np.random.rand(), torch.rand(()).item()


def loader(sampler, endless=False, seed=3, **settings):
    settings = dict(
        dataset=dict(type='Draws'), batch_size=2,
        sampler=dict(type=sampler, shuffle=True), collate_fn=dict(type=list),
        **settings,
    )  # fmt: skip
    return Runner.build_dataloader(repeatable(settings, seed, endless), seed=seed)


def epochs(loader, *numbers):
    found = []
    for epoch in numbers:
        loader.batch_sampler.sampler.set_epoch(epoch)
        found.append(list(batches_from(loader, epoch, 0)))
    return found


def test_epochs_differ_and_come_again():
    first, second = epochs(loader(DefaultSampler), 0, 1)
    assert [len(batch) for batch in first] == [2, 2, 1]
    drawn = [sample[1:] for epoch in (first, second) for b in epoch for sample in b]
    assert len(set(drawn)) == 10
    assert epochs(loader(DefaultSampler), 1) == [second]
    assert epochs(loader(DefaultSampler, seed=4), 1) != [second]
    assert len(epochs(loader(DefaultSampler, drop_last=True), 0)[0]) == 2


def test_workers_do_not_matter():
    alone = epochs(loader(DefaultSampler), 0, 1)
    helped = loader(DefaultSampler, num_workers=2, persistent_workers=True)
    assert epochs(helped, 0, 1) == alone


@pytest.mark.parametrize('sampler', [DefaultSampler, InfiniteSampler])
def test_beginning_in_the_middle(sampler):
    whole = list(islice(batches_from(loader(sampler, endless=True), 0, 0), 8))
    later = list(islice(batches_from(loader(sampler, endless=True), 0, 5), 3))
    assert later == whole[5:]


def test_what_a_step_draws_depends_on_its_number():
    def drawn(number):
        seed_step(3, number)
        return random.random(), np.random.rand(), torch.rand(()).item()

    first = drawn(1)
    assert drawn(2) != first
    assert drawn(1) == first

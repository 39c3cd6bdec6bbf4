"""Which training runs the claims need, at which size, and where their files lie."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from studies.claims import CLAIMS, Case


@dataclass(frozen=True)
class ClassifierSize:
    """What a run of the classifier costs.

    Attributes:
        num_train, num_val: images.
        widths: channels of the stages; the first sees maps of 16 × 16.
        epochs: passes over the training images, the same for every batch size.
        drops: epochs after which the learning rate falls to a tenth.
        lr: learning rate at a batch of 32; it grows with the batch, as in the paper.
    """

    num_train: int = 1500
    num_val: int = 1000
    widths: tuple[int, ...] = (16, 32, 64)
    epochs: int = 16
    drops: tuple[int, ...] = (10, 14)
    lr: float = 0.1


@dataclass(frozen=True)
class DetectorSize:
    """What a run of the detector costs; `side` is height and width of the images."""

    num_train: int = 240
    num_val: int = 80
    side: int = 96
    epochs: int = 8


Size = ClassifierSize | DetectorSize
_SIZES: dict[str, Size] = {'classifier': ClassifierSize(), 'detector': DetectorSize()}
# Everything once in seconds: the figures mean nothing.
_QUICK_SIZES: dict[str, Size] = {
    'classifier': ClassifierSize(
        num_train=64, num_val=20, widths=(16, 16), epochs=3, drops=(2,)
    ),
    'detector': DetectorSize(num_train=4, num_val=2, side=64, epochs=1),
}


@dataclass(frozen=True)
class Job:
    """One training run."""

    case: Case
    seed: int
    size: Size

    @property
    def name(self) -> str:
        """`classifier_gn-g8_batch32_seed0`: also the name of its record."""
        return f'{self.case.name}_seed{self.seed}'

    @property
    def settings(self) -> dict[str, Any]:
        """What the figures depend on, as JSON holds it."""
        settings = dict(case=asdict(self.case), seed=self.seed, size=asdict(self.size))
        return json.loads(json.dumps(settings))


def plan(claims: Iterable[str], seeds: Sequence[int], quick: bool = False) -> list[Job]:
    """The runs of the named claims, each once: the classifier's, then seed by seed."""
    sizes = _QUICK_SIZES if quick else _SIZES
    cases = dict.fromkeys(case for key in claims for case in CLAIMS[key].cases)
    return [
        Job(case, seed, size)
        for task, size in sizes.items()
        for seed in seeds
        for case in cases
        if case.task == task
    ]


def results(work_dir: Path) -> Path:
    """The folder of the records."""
    return work_dir / 'results'


def logs(work_dir: Path) -> Path:
    """The folder of the logs, one folder per run and one file per process."""
    return work_dir / 'logs'

"""Types of arguments: what is wrong is said before anything is measured."""

import argparse
import time
from pathlib import Path


def positive(word: str) -> int:
    """A whole number of at least 1."""
    value = int(word)
    if value < 1:
        raise argparse.ArgumentTypeError(f'expected at least 1, got {word}')
    return value


# What argparse calls it where int() fails.
positive.__name__ = 'whole number'


def output_folder(word: str) -> Path:
    """A folder that can be written into, made if there is none."""
    path = Path(word)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f'{word} cannot be a folder: {error.strerror}'
        ) from error
    return path


def add_budget(parser: argparse.ArgumentParser) -> None:
    """`--budget SECONDS`: no row is begun that would probably end later."""
    parser.add_argument(
        '--budget',
        type=float,
        default=float('inf'),
        metavar='SECONDS',
        help='begin nothing that would not be done by then; rows that an earlier run '
        'of the same source measured on this machine are kept, not measured again',
    )


class Budget:
    """Whether there is time for one more row, judged by the longest so far."""

    def __init__(self, seconds: float):
        self._end = time.monotonic() + seconds
        self._longest = 0.0
        self._began = time.monotonic()

    def begin(self) -> bool:
        """Whether a row may begin now; its time counts from here."""
        now = self._began = time.monotonic()
        return now + self._longest <= self._end

    def end(self) -> None:
        """A row has ended."""
        self._longest = max(self._longest, time.monotonic() - self._began)

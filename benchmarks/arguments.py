"""Types of arguments: what is wrong is said before anything is measured."""

import argparse
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

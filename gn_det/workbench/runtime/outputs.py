"""Where a run will write, tried before it takes hours to get there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from gn_det.workbench.errors import UserError


def make_folder(path: str | Path, flag: str) -> None:
    """Make a folder that files can be written to.

    Raises:
        UserError: naming the flag and the reason, if that cannot be done.
    """
    path = Path(path)
    # Unlike Path's, these take a name that is too long for one that is not there.
    if os.path.isfile(path):
        raise UserError(f'{flag} {path} is a file; name a folder')
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(
            f'{flag} {path} cannot be written to: {error.strerror}; choose another'
        ) from error


def check_folder(path: str | Path, flag: str) -> None:
    """`make_folder`, and leave none behind that was not there.

    Not for several processes at once: one would remove what the other tries.
    """
    path = Path(path)
    made = [folder for folder in (path, *path.parents) if not os.path.isdir(folder)]
    try:
        make_folder(path, flag)
    finally:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def make_folder_of(file: str | Path, flag: str) -> None:
    """`make_folder` for a file that is to be written or replaced."""
    _check_is_no_folder(file, flag)
    make_folder(Path(file).parent, flag)


def check_file(file: str | Path, flag: str) -> None:
    """`check_folder` for a file that is to be written or replaced."""
    _check_is_no_folder(file, flag)
    check_folder(Path(file).parent, flag)


def _check_is_no_folder(file: str | Path, flag: str) -> None:
    if os.path.isdir(file):
        raise UserError(f'{flag} {file} is a folder; name a file')

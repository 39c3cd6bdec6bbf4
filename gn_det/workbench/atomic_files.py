"""Files that are never half written, and what is left of those that would have been."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

_PARTIAL = re.compile(r'.+\.partial-[0-9a-f]+')


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A place beside `path` to write to, which takes the name when the block ends well.

        with replacing('scores.json') as partial:
            partial.write_text(text)

    Whenever the process ends or fails, `path` is whole: as before, or as written, which
    then is on the disk too. Its folder is made if there is none; what a link leads to
    is replaced, not the link; what is no file, such as /dev/null, is written to.

    Raises:
        OSError: of the system; nothing is left behind.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial_file(path) as partial:
        yield partial
        finish(partial, path)


@contextlib.contextmanager
def partial_file(path: str | Path) -> Iterator[Path]:
    """A new, empty file beside `path`, gone when the block is left.

    For a name that depends on the content: give it with `finish` inside the block.
    """
    partial, lock = _locked_beside(Path(path), Path.touch)
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)
        os.close(lock)


@contextlib.contextmanager
def partial_folder(path: str | Path) -> Iterator[Path]:
    """A new, empty folder beside `path`, gone with its content when the block is left.

    What is to stay is moved out of it, or it is renamed as a whole.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, lock = _locked_beside(path, Path.mkdir)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        os.close(lock)


def finish(partial: str | Path, path: str | Path) -> None:
    """Give a partial file its name, durably."""
    _sync(partial)
    os.replace(partial, path)
    _sync(Path(path).parent)


def remove_partial_files(folder: str | Path) -> None:
    """Remove the partial files and folders in a folder whose writers are dead."""
    for path in list(Path(folder).iterdir()):
        if _PARTIAL.fullmatch(path.name) and not path.is_symlink():
            # Not ours to write, or of a file system without locks: it stays.
            with contextlib.suppress(OSError):
                _remove_if_dead(path)


def _locked_beside(path: Path, make: Callable[[Path], None]) -> tuple[Path, int]:
    """What is made, and the descriptor by which its writer is known to live."""
    while True:
        partial = path.with_name(f'{path.name}.partial-{secrets.token_hex(4)}')
        make(partial)
        try:
            lock = _open(partial)
        # It was removed before it was locked: it looked dead.
        except FileNotFoundError:
            continue
        # Some network file systems have no locks; files are written whole there too.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        if partial.exists():
            return partial, lock
        os.close(lock)


def _remove_if_dead(path: Path) -> None:
    lock = _open(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    finally:
        os.close(lock)


def _open(path: Path) -> int:
    # Network file systems lock only what is open for writing; folders never are.
    return os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)


def _sync(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

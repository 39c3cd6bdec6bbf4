"""One run at a time in a work directory, and what the storage says to it."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from gn_det.workbench.atomic_files import remove_partial_files
from gn_det.workbench.errors import UserError
from gn_det.workbench.runtime.progress import remove_partial_results

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def held(work_dir: str | Path) -> Iterator[None]:
    """Keep other runs out of a work directory, and clear what killed ones left there.

    The system's lock on `run.lock` ends with the process, however that ends.

    Raises:
        UserError: if another run holds it.
    """
    lock = FileLock(Path(work_dir, 'run.lock'), blocking=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f'another run writes to --work-dir {work_dir}; wait for its end or choose '
            'another folder'
        ) from None
    except OSError:
        # A file system without locks.
        yield
        return
    try:
        remove_partial_files(work_dir)
        remove_partial_results(work_dir)
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def name_full_disk(work_dir: str | Path) -> Iterator[None]:
    """Say in one line that the disk is full.

    Raises:
        UserError: for what the system says of a full disk, quota or file.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise UserError(
            f'{error.filename or work_dir}: {error.strerror}; the checkpoints before '
            'are whole: free some space and go on with --resume'
        ) from error

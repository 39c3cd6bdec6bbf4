"""Files that are never half written, and mmengine made to write them so."""

from __future__ import annotations

import os
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend


class AtomicLocalBackend(LocalBackend):
    """mmengine's local files, written beside their place and then renamed.

    A process killed while it saves leaves the previous file, or none, under the name
    the next run looks for.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to `filepath`, making its folder if there is none."""
        # What a link leads to is written, not the link.
        path = Path(os.path.realpath(filepath))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f'{path.name}.partial-{os.getpid()}')
        try:
            with open(partial, 'wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def save_checkpoints_atomically() -> None:
    """Let mmengine write local files through `AtomicLocalBackend` from now on."""
    register_backend('local', AtomicLocalBackend, force=True, prefixes='')

"""mmengine made to write its checkpoints whole, and to lose none for the next."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from mmengine.fileio import LocalBackend, register_backend

from gn_det.workbench.atomic_files import replacing


class AtomicLocalBackend(LocalBackend):
    """mmengine's local files, written beside their place and then renamed.

    A checkpoint that is to be removed goes when the one it makes room for is whole:
    mmengine asks for it before, and a kill in between would leave none.
    """

    # mmengine makes an instance for each call.
    _outdated: ClassVar[list[str]] = []

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to `filepath`, making its folder if there is none."""
        with replacing(filepath) as partial:
            partial.write_bytes(obj)
        while self._outdated:
            path = self._outdated.pop()
            if os.path.isfile(path) and not os.path.samefile(path, filepath):
                os.remove(path)

    def remove(self, filepath: str | Path) -> None:
        """Remove a file; a checkpoint when the next one is written."""
        if os.path.splitext(filepath)[1] == '.pth':
            self._outdated.append(os.fspath(filepath))
        else:
            super().remove(filepath)


def save_checkpoints_atomically() -> None:
    """Let mmengine write local files through `AtomicLocalBackend` from now on."""
    register_backend('local', AtomicLocalBackend, force=True, prefixes='')

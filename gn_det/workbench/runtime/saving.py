"""mmengine made to write its checkpoints whole."""

from __future__ import annotations

from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from gn_det.workbench.atomic_files import replacing


class AtomicLocalBackend(LocalBackend):
    """mmengine's local files, written beside their place and then renamed."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to `filepath`, making its folder if there is none."""
        with replacing(filepath) as partial:
            partial.write_bytes(obj)


def save_checkpoints_atomically() -> None:
    """Let mmengine write local files through `AtomicLocalBackend` from now on."""
    register_backend('local', AtomicLocalBackend, force=True, prefixes='')

"""Which checkpoints of a training stay, each whole and none lost for the next."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from mmengine.config import Config
from mmengine.fileio import LocalBackend, register_backend

from gn_det.workbench.atomic_files import replacing
from gn_det.workbench.inputs.building import type_name

_KEPT = dict(save_best='auto', max_keep_ckpts=2)


def keep_best(cfg: Config) -> None:
    """Keep the best checkpoint and the last two where a config says nothing else.

    The best (`best_*.pth`) is that of the highest first score of the validations, which
    of COCO's is the AP of boxes.
    """
    hook = (cfg.get('default_hooks') or {}).get('checkpoint')
    if hook and type_name(hook) == 'CheckpointHook':
        for key, value in _KEPT.items():
            hook.setdefault(key, value)


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

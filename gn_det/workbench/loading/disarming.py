"""What a checkpoint could make mmengine do beyond loading it, taken out of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from gn_det.workbench.errors import UserError

# Run where mmengine would run the config: it has no other way to say why not.
_NOT_RUN = (
    "raise ValueError('the config in a checkpoint is a program and is not run: give a "
    "config file of your own, or set GN_DET_TRUST=1 for a file of your own')\n"
)
# In the state of a run: checkpoints that mmengine's hook deletes when a better comes.
_BEST = 'best_ckpt'


def disarmed(
    content: dict[str, Any], name: str, folder: Path | None, trusted: bool
) -> dict[str, Any]:
    """A checkpoint of which mmengine runs nothing, and by which it deletes no files.

    Resuming, mmengine runs the config in `meta`, and an inferencer without a config
    runs it too. `CheckpointHook` deletes the files that the message hub names as the
    best so far. The text is kept from it, and so is any file that is not in `folder`.

    Args:
        content: the checkpoint; changed in place.
        name: of the file, for messages.
        folder: of the run's checkpoints; None where there is none.
        trusted: whether its config may run.

    Raises:
        UserError: if the meta or the message hub is no dict.
    """
    meta = _dict_in(content, 'meta', name)
    # Older ones of mmengine are objects, which come with full rights only.
    is_object = trusted and not isinstance(content.get('message_hub'), dict)
    hub = {} if is_object else _dict_in(content, 'message_hub', name)
    info = _dict_in(hub, 'runtime_info', name)
    confine(info, folder)
    if not trusted:
        # Only asked how many GPUs an mmdet 1 or 2 had.
        meta.pop('config', None)
        if 'cfg' in meta or 'cfg' in info:
            # The message hub of a run that goes on holds its own.
            info.pop('cfg', None)
            content['meta'] = {**meta, 'cfg': _NOT_RUN}
    return content


def confine(info: dict[str, Any], folder: Path | None) -> None:
    """Let the paths in a run's state name checkpoints of one folder only.

    A run that was copied or moved finds its own files so, and not the original's.
    """
    for key in [key for key in info if key.startswith((_BEST, 'last_ckpt'))]:
        path = info.pop(key)
        file_name = os.path.basename(path) if isinstance(path, str) else ''
        is_ours = file_name.startswith('best_') or key == 'last_ckpt'
        if folder is not None and is_ours and file_name.endswith('.pth'):
            info[key] = os.path.join(folder, file_name)
    kept = info.get('keep_ckpt_ids')
    if kept is not None and not (
        isinstance(kept, list) and all(isinstance(number, int) for number in kept)
    ):
        del info['keep_ckpt_ids']


def _dict_in(content: Any, key: str, name: str) -> dict[str, Any]:
    value = content.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f'{name} holds a {type(value).__name__} as its {key}')
    return value

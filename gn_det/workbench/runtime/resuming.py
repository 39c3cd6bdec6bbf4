"""Where a stopped run goes on: the newest whole checkpoint of the work directory."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmengine.dist import (
    all_gather_object,
    broadcast_object_list,
    get_world_size,
    is_main_process,
)
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from gn_det.workbench.atomic_files import replacing
from gn_det.workbench.errors import UserError
from gn_det.workbench.loading import loader, restricted
from gn_det.workbench.loading.integrity import is_whole
from gn_det.workbench.runtime.loops import RESUMABLE_LOOPS

_NOTE = 'run.json'


@dataclass(frozen=True)
class RunNote:
    """Which run a work directory is of, and how far it has been validated.

    Args:
        run: the name that its checkpoints carry; those of a version without one
            carry ''.
        validated: the iteration after which the last whole validation took place.
    """

    run: str
    validated: int = 0

    @classmethod
    def read(cls, work_dir: str | Path) -> RunNote | None:
        """The note of a work directory, or None without a whole one."""
        try:
            content = json.loads(Path(work_dir, _NOTE).read_text())
            return cls(run=str(content['run']), validated=int(content['validated']))
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def write(self, work_dir: str | Path) -> None:
        """Put it into a work directory."""
        with replacing(Path(work_dir, _NOTE)) as partial:
            partial.write_text(json.dumps(asdict(self)) + '\n')


def find_resume_checkpoint(
    work_dir: str | Path, folder: str | Path | None = None
) -> str | None:
    """The newest whole checkpoint of the run of a work directory, or None.

    The counters in the files decide, not their names or dates. What is damaged is
    passed over with a word, and so are checkpoints of an earlier run that was begun
    anew.

    Args:
        work_dir: of the run.
        folder: with its checkpoints, if they are not in the work directory.
    """
    note = RunNote.read(work_dir)
    found = []
    for path in sorted(Path(folder or work_dir).glob('*.pth')):
        meta = _read_meta(path)
        if meta is None or (note and meta.get('run', '') != note.run):
            continue
        # Of two at the same step the later has seen the validation.
        found.append((meta['iter'], meta['epoch'], path.stat().st_mtime_ns, path))
    for *_, path in sorted(found, reverse=True):
        if is_whole(path):
            return str(path)
        _pass_over(path)
    return None


def seed_of(path: str) -> int | None:
    """The seed that the run of a checkpoint was begun with.

    Raises:
        UserError: if the file is missing or damaged.
    """
    meta = loader.peek(path).get('meta')
    seed = meta.get('seed') if isinstance(meta, Mapping) else None
    return seed if isinstance(seed, int) else None


def _read_meta(path: Path) -> Mapping[str, Any] | None:
    """The meta of a file that training can go on from."""
    try:
        content = restricted.load_torch(path, mmap=True)
    # A damaged file can raise anything at all.
    except Exception:
        _pass_over(path)
        return None
    meta = content.get('meta') if isinstance(content, Mapping) else None
    if not isinstance(meta, Mapping) or 'optimizer' not in content:
        return None
    counters = [meta.get(name) for name in ('iter', 'epoch')]
    return meta if all(isinstance(value, int) for value in counters) else None


def _pass_over(path: Path) -> None:
    print_log(f'{path} is cut short or damaged; not resuming from it')


class ResumeHook(Hook):
    """Keep what a run needs to go on as if it had not been stopped, and go on so.

    Checkpoints get the run's name and the place within the epoch. A resumed run goes on
    there, after the validation that belongs there if that had been cut off. Until the
    first step is trained nothing of an earlier run in the work directory is touched.

    Args:
        begin: called when the work directory is this run's from here on.
    """

    # After the hooks that log a validation and save its checkpoint.
    priority = 'LOWEST'

    def __init__(self, begin: Callable[[], None]) -> None:
        self._begin = begin
        self._meta: Mapping[str, Any] = {}
        self._note: RunNote | None = None
        self._written: RunNote | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep what the file says of its place."""
        if runner.cfg.get('resume'):
            self._meta = checkpoint.get('meta') or {}

    def before_train(self, runner: Runner) -> None:
        """Go to the place, and make up the validation that belongs there."""
        if not runner.cfg.get('resume'):
            self._note = RunNote(uuid.uuid4().hex)
            return
        self._note = RunNote(self._meta.get('run', ''))
        check_same_place(runner.iter)
        self._begin()
        for hook in runner.hooks:
            # Without it the best scores of a validation made up would not be saved.
            if isinstance(hook, CheckpointHook):
                hook.last_ckpt = runner.cfg.load_from
        if isinstance(runner.train_loop, RESUMABLE_LOOPS):
            runner.train_loop.begin_at(self._meta)
            self._make_up_validation(runner)

    def _make_up_validation(self, runner: Runner) -> None:
        folders = [runner.work_dir, os.path.dirname(runner.cfg.load_from)]
        notes = [note for note in map(RunNote.read, folders) if note]
        validated = [n.validated for n in notes if n.run == self._note.run]
        # The first process alone may see the folder.
        said = [max(validated, default=0)]
        broadcast_object_list(said)
        self._note = RunNote(self._note.run, said[0])
        due = runner.train_loop.validation_is_due()
        if due and runner.iter > self._note.validated:
            runner.logger.info('The validation that was cut off is made up')
            runner.val_loop.run()

    def before_train_iter(self, runner: Runner, **_: Any) -> None:
        """From here on the work directory is of this run."""
        if self._written is None:
            self._write(runner)
            if not runner.cfg.get('resume'):
                self._begin()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Say which run it is of, and where in the epoch."""
        meta = checkpoint['meta']
        meta['run'] = self._note.run
        meta['batch'] = getattr(runner.train_loop, 'batch', 0)
        meta['epoch_length'] = len(runner.train_dataloader)

    def after_val_epoch(self, runner: Runner, metrics: Any = None) -> None:
        """Note that it took place."""
        if self._note is not None:
            self._note = RunNote(self._note.run, runner.iter)
            self._write(runner)

    def _write(self, runner: Runner) -> None:
        self._written = self._note
        if is_main_process():
            self._note.write(runner.work_dir)


def check_same_place(iteration: int) -> None:
    """See that all processes go on from the same step.

    Raises:
        UserError: if they found different checkpoints.
    """
    if get_world_size() == 1:
        return
    places = all_gather_object(iteration)
    if len(set(places)) > 1:
        raise UserError(
            f'the processes resumed after different iterations ({places}); the work '
            'directory has to be in a file system that all machines share'
        )

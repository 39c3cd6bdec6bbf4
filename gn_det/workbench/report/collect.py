"""What is known about a run, from what it left in its work directory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmengine.config import Config

from gn_det.workbench.errors import UserError
from gn_det.workbench.evaluation.run_log import RunLog, read_run_log, read_test_figures
from gn_det.workbench.loading.dumped_config import read_config

_NUMBERED = re.compile(r'(epoch|iter)_(\d+)\.pth$')
# Of mmengine's list; the compiler's flags fill a screen and tell a reader nothing.
_ENVIRONMENT = re.compile(
    r'^    (sys\.platform|Python|CUDA available|GPU [\d,]+|PyTorch|TorchVision|OpenCV'
    r'|MMEngine|seed|Distributed training|GPU number): (.+)$',
    re.MULTILINE,
)
_PACKAGES = re.compile(r'Packages: (.+)$', re.MULTILINE)
# The environment stands at the start of a log; the rest may be large.
_HEAD_BYTES = 2**20
_THINGS = {'bbox': 'boxes', 'segm': 'masks'}


class Missing(Exception):
    """A part of the report cannot be made; the text says why, and how to get it."""


@dataclass(frozen=True)
class Run:
    """A training run, finished or not.

    Attributes:
        work_dir: its folder.
        log: the scalars it logged.
    """

    work_dir: Path
    log: RunLog

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.work_dir.resolve().name

    @cached_property
    def config_file(self) -> Path:
        """The resolved config of the newest start, as mmengine wrote it.

        Raises:
            Missing: if there is none.
        """
        found = [
            *sorted(self.work_dir.glob('*/vis_data/config.py'), reverse=True),
            *sorted(self.work_dir.glob('*.py')),
        ]
        if not found:
            raise Missing(f'{self.work_dir} holds no config; mmengine writes one there')
        return found[0]

    @cached_property
    def config(self) -> Config:
        """What `config_file` says.

        Raises:
            Missing: if there is none, or it cannot be read.
        """
        try:
            return read_config(self.config_file)
        except UserError as error:
            raise Missing(str(error)) from error

    @cached_property
    def environment(self) -> dict[str, str]:
        """Label and value of what the run was made with.

        Raises:
            Missing: if no log names it.
        """
        for path in sorted(self.work_dir.glob('*/*.log'), reverse=True):
            with open(path, encoding='utf-8', errors='replace') as file:
                head = file.read(_HEAD_BYTES)
            found = dict(_ENVIRONMENT.findall(head))
            if packages := _PACKAGES.search(head):
                found['packages'] = packages[1]
            if found:
                return found
        raise Missing(
            f'no log under {self.work_dir} names the environment; mmengine writes it '
            'into TIMESTAMP/TIMESTAMP.log'
        )

    @cached_property
    def length(self) -> tuple[str, int] | None:
        """What the config asks for, such as `('epoch', 24)`; None if unknown."""
        try:
            loop = self.config.get('train_cfg') or {}
        except Missing:
            return None
        if loop.get('max_epochs'):
            return 'epoch', int(loop['max_epochs'])
        return ('iter', int(loop['max_iters'])) if loop.get('max_iters') else None

    @cached_property
    def reached(self) -> int | None:
        """The last epoch or iteration saved or evaluated, in the unit of `length`."""
        if self.length is None:
            return None
        unit, _ = self.length
        done = [int(record['step']) for record in self.log.val]
        note = self.work_dir / 'last_checkpoint'
        if note.is_file() and (named := _NUMBERED.search(note.read_text().strip())):
            done += [int(named[2])] if named[1] == unit else []
        if unit == 'iter':
            done += [int(record['iter']) for record in self.log.train]
        return max(done, default=0)

    @property
    def status(self) -> str:
        """Whether the run came to its end, and where it stopped if not."""
        if self.length is None or self.reached is None:
            return 'unknown: no config says how long it should have been'
        unit, total = self.length
        units = {'epoch': 'epochs', 'iter': 'iterations'}[unit]
        if self.reached >= total:
            return f'finished, {total} {units}'
        last = (
            f', last logged iteration {self.log.train[-1]["iter"]}'
            if (self.log.train)
            else ''
        )
        return f'not finished: {self.reached} of {total} {units}{last}'

    @cached_property
    def test_figures(self) -> dict[str, float]:
        """The figures of the newest test run under the folder, or none."""
        folders = [self.work_dir, self.work_dir / 'test']
        for folder in folders:
            try:
                return read_test_figures(folder)
            except (FileNotFoundError, ValueError):
                continue
        return {}

    def results_file(self, kind: str) -> Path:
        """The newest COCO results of a kind, `bbox` or `segm`.

        Raises:
            Missing: if neither a validation nor a test left any.
        """
        found = [
            path
            for name in _THINGS
            for path in self.work_dir.rglob(f'*.{name}.json')
            if '.partial.' not in path.name
        ]
        if not found:
            raise Missing(f'no *.{kind}.json under {self.work_dir}: {self._no(kind)}')
        newest = max(found, key=lambda path: path.stat().st_mtime)
        # Boxes of one evaluation are not shown beside the masks of another.
        prefix = newest.name.rsplit('.', 2)[0]
        file = newest.with_name(f'{prefix}.{kind}.json')
        if file not in found:
            raise Missing(f'no {file.name} beside {newest}: {self._no(kind)}')
        return file

    def _no(self, kind: str) -> str:
        return (
            f'no validation with {_THINGS[kind]} has come to its end, or nothing was '
            'detected. tools/train.py keeps the results of the last validation; '
            f'tools/test.py CONFIG CHECKPOINT --work-dir {self.work_dir} makes them too'
        )


def collect(work_dir: str | Path) -> Run:
    """Read a work directory.

    Raises:
        UserError: if it does not exist or no run has logged anything there.
    """
    work_dir = Path(work_dir)
    if not work_dir.is_dir():
        raise UserError(f'work directory not found: {work_dir.absolute()}')
    try:
        log = read_run_log(work_dir)
    except FileNotFoundError as error:
        raise UserError(
            f'{error}; give the folder that tools/train.py --work-dir wrote to'
        ) from error
    return Run(work_dir, log)

"""What is known about a run, from what it left in its work directory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmengine.config import Config

from gn_det.workbench.errors import UserError
from gn_det.workbench.evaluation.kept_scores import KeptScores, read_scores
from gn_det.workbench.loading.dumped_config import read_config
from gn_det.workbench.report.run_log import RunLog, read_run_log, read_test_scores

_NUMBERED = re.compile(r'(epoch|iter)_(\d{1,15})\.pth$')
# Of mmengine's list; the compiler's flags fill a screen and tell a reader nothing.
_ENVIRONMENT = re.compile(
    r'^    (sys\.platform|Python|CUDA available|GPU [\d,]+|PyTorch|TorchVision|OpenCV'
    r'|MMEngine|seed|Distributed training|GPU number): (.+)$',
    re.MULTILINE,
)
_PACKAGES = re.compile(r'Packages: (.+)$', re.MULTILINE)
# The environment stands at the start of a log; the rest may be large.
_HEAD_BYTES = 2**20
# Two numbers of one evaluation, written at two places.
_SAME = 1e-9


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
    def start(self) -> Path:
        """The folder of the newest start that logged something.

        Raises:
            Missing: if there is none.
        """
        if not self.log.starts:
            raise Missing(f'no start of the run in {self.work_dir} logged anything')
        return self.log.starts[-1]

    @cached_property
    def config_file(self) -> Path:
        """The resolved config of the start whose numbers are shown.

        Raises:
            Missing: if there is none.
        """
        path = self.start / 'vis_data/config.py'
        if not path.is_file():
            raise Missing(f'{path} is not there; mmengine writes the settings to it')
        return path

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
        for path in sorted(self.start.glob('*.log')):
            text = head(path)
            found = dict(_ENVIRONMENT.findall(text))
            if packages := _PACKAGES.search(text):
                found['packages'] = packages[1]
            if found:
                return found
        raise Missing(
            f'no log in {self.start} names the environment; mmengine writes it into '
            'TIMESTAMP.log'
        )

    @cached_property
    def length(self) -> tuple[str, int] | None:
        """What the config asks for, such as `('epoch', 24)`; None if unknown."""
        try:
            loop = self.config.get('train_cfg') or {}
        except Missing:
            return None
        for unit, key in (('epoch', 'max_epochs'), ('iter', 'max_iters')):
            if isinstance(loop, dict) and isinstance(loop.get(key), int):
                return unit, loop[key]
        return None

    @cached_property
    def reached(self) -> int:
        """The last epoch or iteration saved or evaluated, in the unit of `length`."""
        unit = self.length[0] if self.length else ''
        done = [record['step'] for record in self.log.val]
        named = _NUMBERED.search(head(self.work_dir / 'last_checkpoint').strip())
        if named and named[1] == unit:
            done.append(int(named[2]))
        if unit == 'iter':
            done += [record['iter'] for record in self.log.train]
        return max(done, default=0)

    @property
    def status(self) -> str:
        """Whether the run came to its end, and where it stopped if not."""
        if self.length is None:
            return 'unknown: no config says how long it should have been'
        unit, total = self.length
        units = {'epoch': 'epochs', 'iter': 'iterations'}[unit]
        if self.reached < total:
            last = ''
            if self.log.train:
                last = f', last logged iteration {self.log.train[-1]["iter"]}'
            return f'not finished: {self.reached} of {total} {units}{last}'
        # mmengine validates after the last epoch or iteration, whatever the interval.
        validates = self.config.get('val_cfg') is not None
        if validates and all(record['step'] < total for record in self.log.val):
            return (
                f'not finished: {total} {units} trained, without the validation after '
                'the last'
            )
        return f'finished, {total} {units}'

    @cached_property
    def test_scores(self) -> dict[str, float]:
        """The scores of the newest test run under the folder, or none."""
        for folder in (self.work_dir, self.work_dir / 'test'):
            try:
                return read_test_scores(folder)
            except FileNotFoundError:
                continue
        return {}

    @cached_property
    def evaluation(self) -> Evaluation:
        """The newest evaluation that was kept, of those whose AP the run shows.

        Raises:
            Missing: if none is there: of another run it would be taken for this one's.
        """
        shown = {'the test': self.test_scores}
        if self.log.val:
            shown['the last validation'] = self.log.val[-1]
        found, reasons = [], []
        for folder in (self.work_dir, self.work_dir / 'test'):
            for path in sorted(folder.glob('*.scores.json')):
                # A pipe would be waited for.
                if not path.is_file():
                    continue
                try:
                    written, kept = read_scores(path)
                except UserError as error:
                    reasons.append(str(error))
                    continue
                found += [
                    Evaluation(path, of, written, kept)
                    for of, scores in shown.items()
                    if _agree(kept, scores)
                ]
        if found:
            return max(found, key=lambda evaluation: evaluation.written_s)
        raise Missing(
            '; '.join(reasons)
            or f'{self.work_dir} has no scores of the last validation or of a test: '
            'none has come to its end with CocoAPMetric. gn-det train keeps those of '
            'the last validation; gn-det test CONFIG CHECKPOINT --work-dir '
            f'{self.work_dir} makes them too'
        )


@dataclass(frozen=True)
class Evaluation:
    """An evaluation that was kept.

    Attributes:
        path: its file.
        of: what was evaluated, in words.
        written_s: when, in seconds since 1970.
        kinds: the scores of `'bbox'`, `'segm'` or both.
    """

    path: Path
    of: str
    written_s: float
    kinds: dict[str, KeptScores]


def read_run(work_dir: str | Path) -> Run:
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
            f'{error}; give the folder that gn-det train --work-dir wrote to'
        ) from error
    return Run(work_dir, log)


def _agree(kept: dict[str, KeptScores], scores: dict[str, float]) -> bool:
    """Whether scores that were kept are those that were logged."""
    return bool(kept) and all(
        abs(one.values.get('mAP', -3) - scores.get(f'coco/{kind}_mAP', -2)) < _SAME
        for kind, one in kept.items()
    )


def head(path: Path) -> str:
    """The start of a text file, '' if there is none."""
    # A pipe would be waited for.
    if not path.is_file():
        return ''
    try:
        with open(path, 'rb') as file:
            return file.read(_HEAD_BYTES).decode(errors='replace')
    except OSError:
        return ''

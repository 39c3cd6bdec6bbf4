"""The report on one run."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.logging import MMLogger

from gn_det.workbench.errors import UserError
from gn_det.workbench.evaluation.ap_table import COLUMNS, percent
from gn_det.workbench.evaluation.kept_scores import SCORE_THRESHOLD
from gn_det.workbench.evaluation.kinds import KINDS
from gn_det.workbench.inputs.config import move_data_root
from gn_det.workbench.report import figures
from gn_det.workbench.report.page import Figure, Section, Table, section, write_page
from gn_det.workbench.report.pictures import best_and_worst
from gn_det.workbench.report.run import Missing, Run, head, read_run

REPORT_NAME = 'report.html'
_GIB_IN_MIB = 1024
_CONFUSIONS_SHOWN = 10


def write_report(
    work_dir: str | Path, data_root: str | None = None, out: str | Path | None = None
) -> Path:
    """Write the report of a run, finished or not.

    The page holds everything it shows: no other file, no network. A section that
    cannot be made says why and how to get it.

    Args:
        work_dir: of `gn-det train`.
        data_root: where the data are now, if not where the config says.
        out: the file; by default `report.html` in the work directory.

    Returns:
        The file.

    Raises:
        UserError: if nothing was logged there, or the file cannot be written.
    """
    run = read_run(work_dir)
    path = Path(work_dir, REPORT_NAME) if out is None else Path(out)
    sections = _Sections(run, data_root).all()
    write_page(path, run.name, run.status, _headline(run), sections)
    return path


@contextmanager
def report_at_end(work_dir: str | Path) -> Iterator[None]:
    """Write the report of a run when the block is left, however it is left.

    A report that cannot be made is no reason for a training run to fail: the log says
    why. Only the first process of a distributed run writes.
    """
    try:
        yield
    finally:
        if is_main_process():
            _try_report(work_dir)


def speed_rows(run: Run) -> list[tuple[str, str]]:
    """What an iteration took, in words and numbers with their units."""
    times = [r['time'] for r in run.log.train if r.get('time', 0) > 0]
    if not times:
        return []
    loading = [r.get('data_time', 0.0) for r in run.log.train]
    median_s = statistics.median(times)
    rows = [
        ('median of an iteration', f'{median_s:.3f} s'),
        ('of which loading', f'{statistics.median(loading) / median_s:.1%}'),
    ]
    try:
        batch = run.config.train_dataloader.batch_size
        rows.append(('images per second and process', f'{batch / median_s:.2f}'))
    except (Missing, AttributeError, TypeError):
        pass
    peak = _peak_memory(run)
    return [*rows, ('peak GPU memory', f'{peak:.2f} GiB')] if peak is not None else rows


class _Sections:
    """The sections of the page."""

    def __init__(self, run: Run, data_root: str | None) -> None:
        self.run = run
        self._data_root = data_root

    def all(self) -> list[Section]:
        made = {
            'Average precision': self._precision,
            'Training curves': self._curves,
            'Classes': self._classes,
            'Precision and recall': self._precision_recall,
            'Thresholds': self._thresholds,
            'Confusions': self._confusions,
            'Memory and speed': self._speed,
            'Images': self._images,
            'Environment': self._environment,
            'Config': self._config,
        }
        return [section(title, make) for title, make in made.items()]

    @cached_property
    def config(self) -> Config:
        config = self.run.config
        if self._data_root is not None:
            move_data_root(config, self._data_root)
        return config

    def _precision(self) -> dict[str, Any]:
        rows = list(_ap_rows(self.run))
        if not rows:
            raise Missing(
                'nothing was evaluated yet: validate by train_cfg.val_interval, or run '
                f'gn-det test CONFIG CHECKPOINT --work-dir {self.run.work_dir}'
            )
        return dict(
            table=Table(['', *COLUMNS], rows),
            note='In percent, as pycocotools defines it; a dash: no such object.',
        )

    def _curves(self) -> dict[str, Any]:
        log = self.run.log
        if not log.train:
            raise Missing('no training iteration was logged (default_hooks.logger)')
        shown = [Figure(figures.losses(log), 'losses against iterations')]
        missing = []
        if log.val:
            shown.append(Figure(figures.precisions(log), 'AP against epochs'))
        else:
            missing.append('no AP curve: no validation has come to its end')
        shown.append(Figure(figures.rates(log), 'learning rate against iterations'))
        diverged = [r['iter'] for r in log.train if 'loss' not in r]
        if diverged:
            missing.append(
                f'the loss is no finite number in {len(diverged)} of {len(log.train)} '
                f'logged iterations, the first of them {diverged[0]}'
            )
        return dict(figures=shown, missing=missing)

    def _classes(self) -> dict[str, Any]:
        kinds = self.run.evaluation.kinds
        bars = Figure(figures.class_bars(kinds), 'AP per class')
        first = next(iter(kinds.values())).class_ap
        absent = [name for name, ap in first.items() if ap < 0]
        note = f'Without objects: {", ".join(absent)}. ' if absent else ''
        missing = [
            f'{words.things} were not evaluated'
            for kind, words in KINDS.items()
            if kind not in kinds
        ]
        return dict(figures=[bars], note=note + self._source(), missing=missing)

    def _precision_recall(self) -> dict[str, Any]:
        kinds = self.run.evaluation.kinds
        curve = Figure(figures.precision_recall(kinds), 'precision and recall')
        return dict(figures=[curve], note='Mean over the classes. ' + self._source())

    def _thresholds(self) -> dict[str, Any]:
        kind, scores = list(self.run.evaluation.kinds.items())[-1]
        points = scores.operating_points
        if not points and not scores.confusions:
            raise Missing(
                'no objects and no detections, or a release before 0.2 evaluated it'
            )
        rows = []
        for name in scores.class_ap:
            cells = ['–'] * 4
            if name in points:
                point = points[name]
                shares = point.precision, point.recall, point.f1
                cells = [f'{point.threshold:.2f}', *map(percent, shares)]
            rows.append([name, *cells])
        return dict(
            table=Table(['', 'score from', 'precision', 'recall', 'F1'], rows),
            note=f'The score from which {KINDS[kind].things} of a class have the '
            'highest F1 at IoU 0.50; a dash: none was found. ' + self._source(),
        )

    def _confusions(self) -> dict[str, Any]:
        kind, scores = list(self.run.evaluation.kinds.items())[-1]
        if not scores.confusions:
            raise Missing(
                'no objects and no detections, or a release before 0.2 evaluated it'
            )
        objects: Counter[str | None] = Counter()
        for one in scores.confusions:
            objects[one.truth] += one.count
        wrong = [one for one in scores.confusions if one.truth != one.found]
        rows = [
            [
                f'{one.truth or "nothing"} → {one.found or "nothing"}',
                str(one.count),
                percent(one.count / objects[one.truth]) if one.truth else '',
            ]
            for one in wrong[:_CONFUSIONS_SHOWN]
        ]
        shown = Figure(figures.confusion(scores.confusions), 'confusion matrix')
        return dict(
            figures=[shown],
            table=Table(['truth → found', 'times', '% of the class'], rows),
            note=f'{KINDS[kind].things.capitalize()} that score {SCORE_THRESHOLD} or '
            'more, matched at IoU 0.50 whatever their class. ' + self._source(),
        )

    def _source(self) -> str:
        found = self.run.evaluation
        written = datetime.fromtimestamp(found.written_s)
        return f'From {found.of}, {found.path.name}, {written:%Y-%m-%d %H:%M}.'

    def _speed(self) -> dict[str, Any]:
        rows = speed_rows(self.run)
        if not rows:
            raise Missing('no iteration was timed (default_hooks.timer)')
        shown = Figure(figures.speed(self.run.log), 'seconds per iteration')
        note = (
            ''
            if _peak_memory(self.run) is not None
            else 'mmengine records the memory of GPUs; this run had none.'
        )
        return dict(figures=[shown], table=Table(['', ''], rows), note=note)

    def _images(self) -> dict[str, Any]:
        # Masks say more than boxes where there are both.
        kind, scores = list(self.run.evaluation.kinds.items())[-1]
        shown = best_and_worst(scores, self.config)
        return dict(
            pictures={'Best': shown.best, 'Worst': shown.worst},
            missing=shown.unreadable,
            note=f'Ranked by the F1 of each image: {KINDS[kind].things} that score '
            f'{SCORE_THRESHOLD} or more and match at IoU 0.50; a match counts by the '
            'share of the thresholds 0.50 to 0.95 that its IoU reaches. Left: truth. '
            'Right: prediction. ' + self._source(),
        )

    def _environment(self) -> dict[str, Any]:
        return dict(table=Table(['', ''], list(self.run.environment.items())))

    def _config(self) -> dict[str, Any]:
        file = self.run.config_file
        return dict(code=head(file), note=f'From {file}.')


def _headline(run: Run) -> list[tuple[str, str]]:
    """A few large numbers for the top of the page."""
    shown = []
    for kind, words in KINDS.items():
        key = f'coco/{kind}_mAP'
        values = [record[key] for record in run.log.val if key in record]
        if values:
            shown.append((f'{words.name} AP (%), last validation', percent(values[-1])))
    rows = dict(speed_rows(run))
    wanted = ('median of an iteration', 'peak GPU memory')
    return shown + [(name, rows[name]) for name in wanted if name in rows]


def _ap_rows(run: Run) -> Iterator[list[str]]:
    for kind, words in KINDS.items():
        key = f'coco/{kind}_mAP'
        evaluated = [record for record in run.log.val if key in record]
        if evaluated:
            last = evaluated[-1]
            best = max(evaluated, key=lambda record: record[key])
            for which, record in (('last', last), ('best', best)):
                if which == 'last' or best is not last:
                    name = f'{words.name}, {which} validation ({record["step"]})'
                    yield _ap_row(name, kind, record)
        if key in run.test_scores:
            yield _ap_row(f'{words.name}, test', kind, run.test_scores)


def _ap_row(name: str, kind: str, values: Mapping[str, float]) -> list[str]:
    items = COLUMNS.values()
    return [name, *(percent(values.get(f'coco/{kind}_{item}', -1)) for item in items)]


def _peak_memory(run: Run) -> float | None:
    """In GiB, or None where no GPU was used."""
    peaks = [record['memory'] for record in run.log.train if 'memory' in record]
    return max(peaks) / _GIB_IN_MIB if peaks else None


def _try_report(work_dir: str | Path) -> None:
    logger = MMLogger.get_current_instance()
    try:
        logger.info(f'Report: {write_report(work_dir)}')
    except UserError as reason:
        logger.info(f'No report: {reason}')
    except Exception:
        logger.warning(
            f'No report; `gn-det report {work_dir}` tries again', exc_info=True
        )

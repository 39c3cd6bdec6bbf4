"""The report: every section filled, or saying what it lacks and how to get it."""

from __future__ import annotations

import inspect
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.logging import MMLogger
from mmengine.runner import Runner

from gn_det.version import __version__
from gn_det.workbench.atomic_files import replacing
from gn_det.workbench.errors import UserError
from gn_det.workbench.evaluation.ap_table import COLUMNS, KINDS
from gn_det.workbench.inputs.config import move_data_root
from gn_det.workbench.inputs.config_parts import flat
from gn_det.workbench.report import figures
from gn_det.workbench.report.collect import Missing, Run, collect
from gn_det.workbench.report.pictures import best_and_worst
from gn_det.workbench.report.scores import SCORE_THRESHOLD, Scores, score

REPORT_NAME = 'report.html'
_GIB_IN_MIB = 1024
# What a Runner reads; the rest of a config are its author's variables. Where a run was
# made and where it put its files is no difference between two.
_COMPARED = frozenset(inspect.signature(Runner).parameters) - {
    'work_dir',
    'default_scope',
    'launcher',
}


@dataclass(frozen=True)
class Figure:
    """An image of the page: a data address, and words for who cannot see it."""

    address: str
    text: str


@dataclass(frozen=True)
class Table:
    """Rows of text under column heads; the first cell of a row names it.

    `wraps` is for long words: all columns are on the page, and their texts are broken
    where they have to be.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    wraps: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page; `missing` says why the other parts are empty."""

    title: str
    figures: Sequence[Figure] = ()
    table: Table | None = None
    pictures: Mapping[str, Sequence[Any]] | None = None
    note: str = ''
    code: str = ''
    missing: Sequence[str] = ()


class _Report:
    """The sections of one run; what is costly is computed once."""

    def __init__(self, run: Run, data_root: str | None) -> None:
        self.run = run
        self._data_root = data_root

    @cached_property
    def config(self) -> Config:
        config = self.run.config
        if self._data_root is not None:
            move_data_root(config, self._data_root)
        return config

    @cached_property
    def scored(self) -> tuple[list[Scores], list[str]]:
        """Scores of boxes and masks, and why one of them is missing."""
        scores, reasons = [], []
        for kind in KINDS:
            try:
                file = self.run.results_file(kind)
                scores.append(score(kind, file, self.config))
            except (Missing, UserError) as reason:
                reasons.append(str(reason))
        return scores, list(dict.fromkeys(reasons))

    def scores(self) -> list[Scores]:
        scores, reasons = self.scored
        if not scores:
            raise Missing('; '.join(reasons))
        return scores

    def sections(self) -> list[Section]:
        made = {
            'Average precision': self._figures,
            'Training curves': self._curves,
            'Classes': self._classes,
            'Precision and recall': self._precision_recall,
            'Memory and speed': self._speed,
            'Images': self._images,
            'Environment': self._environment,
            'Config': self._config,
        }
        return [_section(title, make) for title, make in made.items()]

    def _figures(self) -> dict[str, Any]:
        rows = list(_ap_rows(self.run))
        if not rows:
            raise Missing(
                'nothing was evaluated yet: validate by train_cfg.val_interval, or run '
                f'tools/test.py CONFIG CHECKPOINT --work-dir {self.run.work_dir}'
            )
        return dict(
            table=Table(['', *COLUMNS], rows),
            note='From 0 to 1, as pycocotools defines it; a dash: no such object.',
        )

    def _curves(self) -> dict[str, Any]:
        log = self.run.log
        if not log.train:
            raise Missing('no training iteration was logged (default_hooks.logger)')
        shown = [Figure(figures.losses(log), 'losses against iterations')]
        missing = []
        if log.val:
            shown.append(Figure(figures.figures(log), 'AP against epochs'))
        else:
            missing.append('no AP curve: no validation has come to its end')
        shown.append(Figure(figures.rates(log), 'learning rate against iterations'))
        return dict(figures=shown, missing=missing)

    def _classes(self) -> dict[str, Any]:
        scores = self.scores()
        bars = Figure(figures.class_bars(scores), 'AP per class')
        absent = [
            name
            for name, ap in zip(scores[0].classes, scores[0].class_ap, strict=True)
            if math.isnan(ap)
        ]
        note = f'Without objects: {", ".join(absent)}. ' if absent else ''
        return dict(figures=[bars], note=note + self._source(), missing=self.scored[1])

    def _precision_recall(self) -> dict[str, Any]:
        scores = self.scores()
        names = [KINDS[one.kind] for one in scores]
        curve = Figure(figures.precision_recall(scores, names), 'precision and recall')
        return dict(figures=[curve], note='Mean over the classes. ' + self._source())

    def _source(self) -> str:
        file = self.run.results_file(self.scores()[0].kind)
        written = datetime.fromtimestamp(file.stat().st_mtime)
        return f'From {file.name}, written {written:%Y-%m-%d %H:%M}.'

    def _speed(self) -> dict[str, Any]:
        rows = _speed_rows(self.run)
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
        scores = self.scores()[-1]
        shown = best_and_worst(scores, self.config)
        things = {'bbox': 'boxes', 'segm': 'masks'}[scores.kind]
        return dict(
            pictures={'Best': shown.best, 'Worst': shown.worst},
            missing=shown.unreadable,
            note=f'Ranked by the F1 of each image: {things} that score '
            f'{SCORE_THRESHOLD} or more, mean over IoU 0.50 to 0.95. Left: truth. '
            'Right: prediction.',
        )

    def _environment(self) -> dict[str, Any]:
        return dict(table=Table(['', ''], list(self.run.environment.items())))

    def _config(self) -> dict[str, Any]:
        return dict(code=self.run.config_file.read_text(errors='replace'))


def _section(title: str, make: Callable[[], dict[str, Any]]) -> Section:
    try:
        return Section(title, **make())
    except (Missing, UserError) as reason:
        return Section(title, missing=[str(reason)])
    # What a run left may be odd in any way; it costs one section and not the page.
    except Exception as error:
        MMLogger.get_current_instance().warning(
            f'The section {title!r} of a report cannot be made', exc_info=True
        )
        return Section(title, missing=[f'cannot be made: {error!r}'])


def _ap_rows(run: Run) -> Iterator[list[str]]:
    for kind, label in KINDS.items():
        key = f'coco/{kind}_mAP'
        evaluated = [record for record in run.log.val if key in record]
        if evaluated:
            last = evaluated[-1]
            best = max(evaluated, key=lambda record: record[key])
            yield _ap_row(f'{label}, last validation ({last["step"]})', kind, last)
            if best is not last:
                yield _ap_row(f'{label}, best validation ({best["step"]})', kind, best)
        if key in run.test_figures:
            yield _ap_row(f'{label}, test', kind, run.test_figures)


def _ap_row(name: str, kind: str, values: Mapping[str, float]) -> list[str]:
    cells = (values.get(f'coco/{kind}_{item}', -1.0) for item in COLUMNS.values())
    return [name, *(f'{value:.3f}' if value >= 0 else '–' for value in cells)]


def _speed_rows(run: Run) -> list[tuple[str, str]]:
    times = [record['time'] for record in run.log.train if 'time' in record]
    if not times:
        return []
    loading = [record.get('data_time', 0.0) for record in run.log.train]
    median_s = statistics.median(times)
    rows = [
        ('median of an iteration', f'{median_s:.3f} s'),
        ('of which loading', f'{statistics.median(loading) / median_s:.1%}'),
    ]
    try:
        batch = run.config.train_dataloader.batch_size
        rows.append(('images per second and process', f'{batch / median_s:.2f}'))
    except (Missing, AttributeError):
        pass
    peak = _peak_memory(run)
    return [*rows, ('peak GPU memory', f'{peak:.2f} GiB')] if peak is not None else rows


def _peak_memory(run: Run) -> float | None:
    """In GiB, or None where no GPU was used."""
    peaks = [record['memory'] for record in run.log.train if 'memory' in record]
    return max(peaks) / _GIB_IN_MIB if peaks else None


def write_report(work_dir: str | Path, data_root: str | None = None) -> Path:
    """Write `report.html` into the work directory of a run, finished or not.

    The page holds everything it shows: no other file, no network. A section that
    cannot be made says why and how to get it.

    Args:
        work_dir: of `tools/train.py`.
        data_root: where the data are now, if not where the config says.

    Returns:
        The file.

    Raises:
        UserError: if nothing was logged there, or the file cannot be written.
    """
    run = collect(work_dir)
    report = _Report(run, data_root)
    path = Path(work_dir) / REPORT_NAME
    _write(path, run.name, run.status, _headline(run), report.sections())
    return path


def _headline(run: Run) -> list[tuple[str, str]]:
    """A few large figures for the top of the page."""
    shown = []
    for kind, label in KINDS.items():
        key = f'coco/{kind}_mAP'
        values = [record[key] for record in run.log.val if key in record]
        if values:
            shown.append((f'{label} AP, last validation', f'{values[-1]:.3f}'))
    rows = dict(_speed_rows(run))
    wanted = ('median of an iteration', 'peak GPU memory')
    return shown + [(name, rows[name]) for name in wanted if name in rows]


def write_comparison(work_dirs: Sequence[str | Path], path: str | Path) -> Path:
    """Write one page with several runs side by side.

    Raises:
        UserError: if nothing was logged in one of the folders, one is named twice, or
            the file cannot be written.
    """
    check_runs(work_dirs)
    runs = dict(zip(_names(work_dirs), map(collect, work_dirs), strict=True))
    logs = {name: run.log for name, run in runs.items()}
    curves = [Figure(figures.compared_losses(logs), 'total loss of the runs')]
    for kind, label in KINDS.items():
        key = f'coco/{kind}_mAP'
        if any(key in record for log in logs.values() for record in log.val):
            address = figures.compared_figures(logs, key)
            curves.append(Figure(address, f'{label} AP of the runs'))
    sections = [
        Section(
            'Precision and speed',
            table=_figures_table(runs),
            note='AP of the last validation, from 0 to 1; a dash: no such figure.',
        ),
        Section('Training curves', figures=curves),
        _section('Settings that differ', lambda: _differences(runs)),
    ]
    path = Path(path)
    _write(path, ' and '.join(runs), f'{len(runs)} runs compared', [], sections)
    return path


def check_runs(work_dirs: Sequence[str | Path]) -> None:
    """Look at the work directories of several runs before anything is written.

    Raises:
        UserError: if nothing was logged in one of them, or one is named twice.
    """
    known: set[Path] = set()
    for work_dir in work_dirs:
        collect(work_dir)
        if Path(work_dir).resolve() in known:
            raise UserError(f'{work_dir} is named twice; name each run once')
        known.add(Path(work_dir).resolve())


def _names(work_dirs: Sequence[str | Path]) -> list[str]:
    """The folders' own names, or their paths where two have the same."""
    names = [Path(work_dir).resolve().name for work_dir in work_dirs]
    same = len(set(names)) < len(names)
    return [str(w) for w in work_dirs] if same else names


def _figures_table(runs: Mapping[str, Run]) -> Table:
    rows = [['status', *(run.status for run in runs.values())]]
    for kind, label in KINDS.items():
        for column, item in COLUMNS.items():
            key = f'coco/{kind}_{item}'
            last = [[r[key] for r in run.log.val if key in r] for run in runs.values()]
            if any(last):
                cells = (f'{v[-1]:.3f}' if v and v[-1] >= 0 else '–' for v in last)
                rows.append([f'{label} {column}', *cells])
    speeds = [dict(_speed_rows(run)) for run in runs.values()]
    for name in dict.fromkeys(name for speed in speeds for name in speed):
        rows.append([name, *(speed.get(name, '–') for speed in speeds)])
    return Table(['', *runs], rows)


def _differences(runs: Mapping[str, Run]) -> dict[str, Any]:
    settings = [dict(flat(run.config.to_dict())) for run in runs.values()]
    keys = dict.fromkeys(key for one in settings for key in one)
    rows = [
        [key, *(one.get(key, '–') for one in settings)]
        for key in keys
        if len({one.get(key) for one in settings}) > 1
        and key.split('.')[0] in _COMPARED
    ]
    if not rows:
        return dict(note='None: the configs are the same.')
    return dict(table=Table(['', *runs], rows, wraps=True))


def _write(
    path: Path,
    title: str,
    status: str,
    headline: Sequence[tuple[str, str]],
    sections: Sequence[Section],
) -> None:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('gn_det.workbench.report'),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template('report.html.j2').render(
        title=title,
        status=status,
        headline=headline,
        sections=sections,
        made=f'{datetime.now():%Y-%m-%d %H:%M}',
        version=__version__,
    )
    try:
        with replacing(path) as partial:
            partial.write_text(page, encoding='utf-8')
    except OSError as error:
        raise UserError(f'cannot write {path}: {error.strerror}') from error


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


def _try_report(work_dir: str | Path) -> None:
    logger = MMLogger.get_current_instance()
    try:
        logger.info(f'Report: {write_report(work_dir)}')
    except UserError as reason:
        logger.info(f'No report: {reason}')
    except Exception:
        logger.warning(
            f'No report; `python tools/report.py {work_dir}` tries again', exc_info=True
        )

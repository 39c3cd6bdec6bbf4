"""Several runs side by side on one page."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.runner import Runner

from gn_det.workbench.errors import UserError
from gn_det.workbench.evaluation.ap_table import COLUMNS, percent
from gn_det.workbench.evaluation.kinds import KINDS
from gn_det.workbench.inputs.config_parts import flat
from gn_det.workbench.report import figures
from gn_det.workbench.report.page import Figure, Table, section, write_page
from gn_det.workbench.report.run import Run, read_run
from gn_det.workbench.report.run_page import REPORT_NAME, speed_rows

# What a Runner reads; the rest of a config are its author's variables. Where a run was
# made and where it put its files is no difference between two.
_COMPARED = frozenset(inspect.signature(Runner).parameters) - {
    'work_dir',
    'default_scope',
    'launcher',
}


def write_comparison(work_dirs: Sequence[str | Path], path: str | Path) -> Path:
    """Write one page with several runs side by side.

    Raises:
        UserError: if nothing was logged in one of the folders, one is named twice, the
            page would replace one's report, or the file cannot be written.
    """
    check_runs(work_dirs, path)
    runs = dict(zip(_names(work_dirs), map(read_run, work_dirs), strict=True))
    sections = [
        section('Precision and speed', lambda: _scores(runs)),
        section('Training curves', lambda: _curves(runs)),
        section('Settings that differ', lambda: _differences(runs)),
    ]
    path = Path(path)
    write_page(path, ' and '.join(runs), f'{len(runs)} runs compared', [], sections)
    return path


def check_runs(
    work_dirs: Sequence[str | Path], comparison: str | Path | None = None
) -> None:
    """Look at the work directories of several runs before anything is written.

    Raises:
        UserError: if nothing was logged in one of them, one is named twice, or their
            comparison would replace a report of one.
    """
    known: set[Path] = set()
    for work_dir in work_dirs:
        read_run(work_dir)
        folder = Path(work_dir).resolve()
        if folder in known:
            raise UserError(f'{work_dir} is named twice; name each run once')
        if comparison and Path(comparison).resolve() == folder / REPORT_NAME:
            raise UserError(
                f'--out {comparison} is the report of {work_dir}; name another file'
            )
        known.add(folder)


def _names(work_dirs: Sequence[str | Path]) -> list[str]:
    """The folders' own names, or their paths where two have the same."""
    names = [Path(work_dir).resolve().name for work_dir in work_dirs]
    same = len(set(names)) < len(names)
    return [str(w) for w in work_dirs] if same else names


def _scores(runs: Mapping[str, Run]) -> dict[str, Any]:
    rows = [['status', *(run.status for run in runs.values())]]
    for kind, words in KINDS.items():
        for column, item in COLUMNS.items():
            key = f'coco/{kind}_{item}'
            last = [[r[key] for r in run.log.val if key in r] for run in runs.values()]
            if any(last):
                cells = (percent(values[-1]) if values else '–' for values in last)
                rows.append([f'{words.name} {column}', *cells])
    speeds = [dict(speed_rows(run)) for run in runs.values()]
    for name in dict.fromkeys(name for speed in speeds for name in speed):
        rows.append([name, *(speed.get(name, '–') for speed in speeds)])
    return dict(
        table=Table(['', *runs], rows),
        note='AP of the last validation in percent; a dash: no such number.',
    )


def _curves(runs: Mapping[str, Run]) -> dict[str, Any]:
    logs = {name: run.log for name, run in runs.items()}
    shown = [Figure(figures.compared_losses(logs), 'total loss of the runs')]
    for kind, words in KINDS.items():
        key = f'coco/{kind}_mAP'
        if any(key in record for log in logs.values() for record in log.val):
            address = figures.compared_precisions(logs, kind)
            shown.append(Figure(address, f'{words.name} AP of the runs'))
    return dict(figures=shown)


def _differences(runs: Mapping[str, Run]) -> dict[str, Any]:
    settings = [dict(flat(run.config.to_dict())) for run in runs.values()]
    keys = dict.fromkeys(key for one in settings for key in one)
    rows = [
        [key, *(one.get(key, '–') for one in settings)]
        for key in keys
        if key.split('.')[0] in _COMPARED
        and len({one.get(key) for one in settings}) > 1
    ]
    if not rows:
        return dict(note='None: the configs are the same.')
    return dict(table=Table(['', *runs], rows, wraps=True))

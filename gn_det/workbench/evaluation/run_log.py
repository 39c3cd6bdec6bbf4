"""What a run of mmengine left in its work directory: losses, figures, results."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class RunLog:
    """The scalars of a training run.

    Attributes:
        train: one dict per logged iteration (`iter`, `loss`, `lr`, `time`, …).
        val: one dict per validation (`step`: the epoch, `coco/bbox_mAP`, …).
    """

    train: list[dict] = field(default_factory=list)
    val: list[dict] = field(default_factory=list)


def read_run_log(work_dir: str | Path) -> RunLog:
    """Read the scalars of a run, resumed parts included.

    mmengine opens one time-stamped folder per start. A start from the first iteration
    is a new run and replaces what was there; a resumed part repeats steps of the one
    before it, and the later figure counts.

    Raises:
        FileNotFoundError: if no run has logged anything under `work_dir`.
    """
    files = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    if not files:
        raise FileNotFoundError(f'no training log under {work_dir}')
    train: dict[int, dict] = {}
    val: dict[int, dict] = {}
    for file in files:
        records = _records(file)
        trained = [r for r in records if 'loss' in r and 'iter' in r]
        if trained and train and trained[0]['iter'] <= min(train):
            train, val = {}, {}
        train |= {record['iter']: record for record in trained}
        for record in records:
            if 'loss' in record or 'step' not in record:
                continue
            if any('mAP' in key for key in record):
                val[record['step']] = record
    return RunLog(
        train=[train[key] for key in sorted(train)],
        val=[val[key] for key in sorted(val)],
    )


def _records(file: Path) -> list[dict[str, float]]:
    """The numbers of every line that holds some.

    The last line of a killed run may be cut short, and a full disk or another program
    may leave lines of something else.
    """
    records = []
    for line in file.read_text(encoding='utf-8', errors='replace').splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            numbers = {k: v for k, v in record.items() if isinstance(v, int | float)}
            records.append(numbers)
    return records


def read_test_figures(work_dir: str | Path) -> dict[str, float]:
    """The figures of the newest test run under a work directory, AP from 0 to 1.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file does not hold them.
    """
    files = sorted(
        path
        for path in Path(work_dir).glob('*/*.json')
        if path.stem == path.parent.name
    )
    if not files:
        raise FileNotFoundError(f'no test results under {work_dir}')
    figures = json.loads(files[-1].read_text())
    if not isinstance(figures, dict):
        raise ValueError(f'{files[-1]} holds no figures')
    return {k: v for k, v in figures.items() if isinstance(v, int | float)}

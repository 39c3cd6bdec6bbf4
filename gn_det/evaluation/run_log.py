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
        iterations = [record['iter'] for record in records if 'loss' in record]
        if iterations and train and iterations[0] <= min(train):
            train, val = {}, {}
        for record in records:
            if 'loss' in record:
                train[record['iter']] = record
            elif any('mAP' in key for key in record):
                val[record['step']] = record
    return RunLog(
        train=[train[key] for key in sorted(train)],
        val=[val[key] for key in sorted(val)],
    )


def _records(file: Path) -> list[dict]:
    records = []
    for line in file.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            # The last line of a killed run may be cut short.
            continue
    return records


def read_test_figures(work_dir: str | Path) -> dict[str, float]:
    """The figures of the newest test run under a work directory, AP from 0 to 1.

    Raises:
        FileNotFoundError: if there is none.
    """
    files = sorted(
        path
        for path in Path(work_dir).glob('*/*.json')
        if path.stem == path.parent.name
    )
    if not files:
        raise FileNotFoundError(f'no test results under {work_dir}')
    return json.loads(files[-1].read_text())

"""What the starts of a run logged, read as data: what is damaged is left out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gn_det.workbench.errors import UserError
from gn_det.workbench.loading.dumped_config import read_config

# A line of mmengine's has some hundred characters, a file of scores some thousand.
_MOST_BYTES = 2**20
# More than any loss; what draws the curves stays far from the end of its numbers.
_MOST = 1e30


@dataclass(frozen=True)
class RunLog:
    """The scalars of a training run.

    Attributes:
        train: one dict per logged iteration (`iter`, `loss`, `lr`, `time`, …), by
            rising iteration; `loss` is missing where it was not finite.
        val: one dict per validation (`step`: the epoch, `coco/bbox_mAP`, …).
        starts: the folders of the starts that they are of, the oldest first.
    """

    train: list[dict[str, float]] = field(default_factory=list)
    val: list[dict[str, float]] = field(default_factory=list)
    starts: tuple[Path, ...] = ()


def read_run_log(work_dir: str | Path) -> RunLog:
    """Read the scalars of a run, resumed parts included.

    mmengine opens one time-stamped folder per start. A start that was not resumed is a
    new run and replaces what was there, once it has logged something; a resumed part
    repeats steps of the one before it, and the later number counts.

    Raises:
        FileNotFoundError: if no run has logged anything under `work_dir`.
    """
    files = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    if not files:
        raise FileNotFoundError(f'no training log under {work_dir}')
    train: dict[int, dict] = {}
    val: dict[int, dict] = {}
    starts: list[Path] = []
    for file in files:
        trained, validated = _scalars(file)
        if not trained and not validated:
            continue
        folder = file.parents[1]
        if trained and train and _starts_over(folder, min(trained), min(train)):
            train, val, starts = {}, {}, []
        starts.append(folder)
        train |= trained
        val |= validated
    return RunLog(
        train=[train[key] for key in sorted(train)],
        val=[val[key] for key in sorted(val)],
        starts=tuple(starts),
    )


def read_test_scores(work_dir: str | Path) -> dict[str, float]:
    """The scores of the newest test run under a work directory, AP from 0 to 1.

    Raises:
        FileNotFoundError: if there is none.
    """
    for path in sorted(Path(work_dir).glob('*/*.json'), reverse=True):
        if path.stem == path.parent.name:
            for content in _objects(path, lines=False):
                if numbers := _numbers(content):
                    return numbers
    raise FileNotFoundError(f'no test results under {work_dir}')


def _starts_over(folder: Path, first: int, first_before: int) -> bool:
    """Whether a start is no resumed one: its config says so, or its first iteration."""
    try:
        if not read_config(folder / 'vis_data/config.py').get('resume'):
            return True
    except UserError:
        pass
    # mmengine also resumes from nothing.
    return first <= first_before


def _scalars(file: Path) -> tuple[dict[int, dict], dict[int, dict]]:
    """The numbers of every line by iteration, and those of validations by step."""
    trained: dict[int, dict] = {}
    validated: dict[int, dict] = {}
    for content in _objects(file):
        record = _numbers(content)
        for step in ('iter', 'step'):
            if step in record and (record[step] < 0 or record[step] % 1):
                del record[step]
            elif step in record:
                record[step] = int(record[step])
        is_validation = any('mAP' in key for key in record) or (
            'time' in record and 'lr' not in record
        )
        if 'loss' in content:
            if 'iter' in record:
                trained[record['iter']] = record
        elif is_validation and 'step' in record:
            validated[record['step']] = record
    return trained, validated


def _objects(file: Path, lines: bool = True) -> Iterator[Mapping[str, Any]]:
    """The JSON objects of a file, one a line or one in all.

    The last line of a killed run may be cut short, and a full disk or another program
    may leave something else.
    """
    # A pipe would be waited for.
    if not file.is_file():
        return
    try:
        with open(file, 'rb') as opened:
            read = opened.readline if lines else opened.read
            while part := read(_MOST_BYTES):
                try:
                    content = json.loads(part.decode(errors='replace'))
                except (ValueError, RecursionError):
                    continue
                if isinstance(content, dict):
                    yield content
    except OSError:
        return


def _numbers(content: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of an object; not a number fails the comparison."""
    return {
        key: value
        for key, value in content.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) < _MOST
    }

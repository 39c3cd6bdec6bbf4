"""What a training run leaves: one JSON file with figures, settings and machine."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gn_det.version import __version__
from gn_det.workbench.atomic_files import replacing
from gn_det.workbench.errors import UserError
from studies.plan import Job

ROOT = Path(__file__).resolve().parent.parent
# OneDL's forks and the original releases own the same import names.
_PACKAGES = (
    'torch', 'onedl-mmengine', 'mmengine', 'onedl-mmdetection', 'mmdet',
)  # fmt: skip
_PARTS = ('case', 'seed', 'size', 'figures', 'seconds', 'machine', 'commit', 'date')


def is_done(folder: Path, job: Job) -> bool:
    """Whether there is a record of this job, made with these settings."""
    path = folder / f'{job.name}.json'
    if not path.is_file():
        return False
    record = read_record(path)
    return {key: record[key] for key in job.settings} == job.settings


def write_record(
    folder: Path, job: Job, figures: dict[str, float], seconds: float, device: str
) -> None:
    """Write the record beside its place and rename it: it is whole or not there."""
    record = {
        **job.settings,
        'figures': {name: round(value, 3) for name, value in figures.items()},
        'seconds': round(seconds, 1),
        'machine': f'{device}, {os.cpu_count()} CPU cores, {platform.machine()}',
        'packages': ', '.join(_versions()),
        'commit': _commit(),
        'date': datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }
    with replacing(folder / f'{job.name}.json') as partial:
        partial.write_text(json.dumps(record, indent=1, ensure_ascii=False) + '\n')


def read_record(path: Path) -> dict[str, Any]:
    """One record.

    Raises:
        UserError: if the file is not one.
    """
    try:
        record = json.loads(path.read_text())
        missing = [part for part in _PARTS if part not in record]
    except (ValueError, TypeError) as error:
        raise UserError(f'{path} is not JSON ({error}); {_WAY_OUT}') from error
    if missing:
        raise UserError(f'{path} has no {missing[0]}; {_WAY_OUT}')
    return record


_WAY_OUT = 'remove it and run studies/run.py again'


def read_records(folder: Path) -> list[dict[str, Any]]:
    """All records of a folder, in the order of their names."""
    return [read_record(path) for path in sorted(folder.glob('*.json'))]


def _versions() -> list[str]:
    found = [f'Python {platform.python_version()}', f'gn_det {__version__}']
    for name in _PACKAGES:
        try:
            found.append(f'{name} {version(name)}')
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    command = ['git', 'describe', '--always', '--dirty', '--exclude', '*']
    try:
        found = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False
        )
    except OSError:
        return 'unknown'
    return found.stdout.strip() or 'unknown'

"""A page of sections, each filled or saying what it lacks, as one HTML file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from mmengine.logging import MMLogger

from gn_det.version import __version__
from gn_det.workbench.atomic_files import replacing
from gn_det.workbench.errors import UserError
from gn_det.workbench.evaluation.text import printable
from gn_det.workbench.report.run import Missing


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


def section(title: str, make: Callable[[], dict[str, Any]]) -> Section:
    """A section of what `make` returns, or of why it cannot be made."""
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


def write_page(
    path: Path,
    title: str,
    status: str,
    headline: Sequence[tuple[str, str]],
    sections: Sequence[Section],
) -> None:
    """Write a page, whole or not at all.

    Raises:
        UserError: if the file cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('gn_det.workbench.report'),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
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


def _shown(value: Any) -> Any:
    return printable(value, keep='\n\t') if type(value) is str else value

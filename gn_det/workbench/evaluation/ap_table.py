"""COCO scores as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gn_det.workbench.evaluation.kinds import KINDS
from gn_det.workbench.evaluation.published import Published

COLUMNS = {
    'AP': 'mAP',
    'AP50': 'mAP_50',
    'AP75': 'mAP_75',
    'AP S': 'mAP_s',
    'AP M': 'mAP_m',
    'AP L': 'mAP_l',
    'AR': 'AR@100',
}
_PUBLISHED, _DIFFERENCE = '  published', '  difference'
# Columns of a terminal, more than any table needs.
_ENOUGH = 1000


def ap_table(
    scores: Mapping[str, float], title: str = '', published: Published | None = None
) -> Table:
    """One row for boxes and one for masks, in percent.

    Args:
        scores: of a COCO metric, from 0 to 1, with keys such as `coco/bbox_mAP`. COCO
            gives -1 to a size of which there is no object; it is shown as a dash.
        title: stands above the table.
        published: what the zoo has for this model; it stands below each row, with the
            difference.
    """
    table = _table(COLUMNS, title)
    if published:
        table.columns[0].min_width = len(_DIFFERENCE)
    captions = []
    for kind, words in KINDS.items():
        if f'coco/{kind}_mAP' not in scores:
            continue
        values = [scores.get(f'coco/{kind}_{key}', -1) for key in COLUMNS.values()]
        if values[0] < 0:
            captions = ['the annotations have no object to find: COCO defines no AP']
            published = None
        table.add_row(words.name, *map(percent, values))
        ap = published.ap(kind) if published else None
        if ap is not None:
            table.add_row(_PUBLISHED, f'{ap:.1f}')
            table.add_row(_DIFFERENCE, f'{100 * values[0] - ap:+.1f}')
    if published:
        captions.append(f'published by {published.by}')
    if captions:
        table.caption = _plain('; '.join(captions), 'table.caption')
    return table


def class_table(scores: Mapping[str, float]) -> Table:
    """The AP of each class in percent, from keys such as `coco/bbox_mAP/person`."""
    heads = {
        kind: f'coco/{kind}_mAP/'
        for kind in KINDS
        if any(key.startswith(f'coco/{kind}_mAP/') for key in scores)
    }
    table = _table([f'{KINDS[kind].name} AP' for kind in heads])
    first = next(iter(heads.values()), None)
    for key in scores:
        if first and key.startswith(first):
            name = key.removeprefix(first)
            values = [scores.get(head + name, -1) for head in heads.values()]
            table.add_row(_plain(name), *map(percent, values))
    return table


def show(table: Table) -> None:
    """Print a table; on a terminal too narrow for it no number is cut short."""
    needed = Console(width=_ENOUGH).measure(table).minimum
    Console(width=max(Console().width, needed)).print(table)


def _table(columns: Iterable[str], title: str = '') -> Table:
    table = Table('%', *columns, title=_plain(title, 'table.title') if title else None)
    for column in table.columns[1:]:
        column.justify = 'right'
        column.no_wrap = True
    return table


def _plain(text: str, style: str = '') -> Text:
    """A name or a path as it is: rich would take `[…]` in it for markup."""
    return Text(text, style)


def percent(value: float) -> str:
    """A score from 0 to 1 as people read it; a dash for what COCO does not define."""
    return f'{100 * value:.1f}' if value >= 0 else '–'

"""COCO figures as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.table import Table

from gn_det.evaluation.published import Published

COLUMNS = {
    'AP': 'mAP',
    'AP50': 'mAP_50',
    'AP75': 'mAP_75',
    'AP S': 'mAP_s',
    'AP M': 'mAP_m',
    'AP L': 'mAP_l',
    'AR': 'AR@100',
}
KINDS = {'bbox': 'box', 'segm': 'mask'}


def ap_table(
    figures: Mapping[str, float], title: str = '', published: Published | None = None
) -> Table:
    """One row for boxes and one for masks, in percent.

    Args:
        figures: of a COCO metric, from 0 to 1, with keys such as `coco/bbox_mAP`. COCO
            gives -1 to a size of which there is no object; it is shown as a dash.
        title: stands above the table.
        published: what the zoo has for this model; it stands below each row, with the
            difference.
    """
    table = _table(COLUMNS, title)
    for kind, name in KINDS.items():
        values = [figures.get(f'coco/{kind}_{key}', -1) for key in COLUMNS.values()]
        if values[0] < 0:
            continue
        table.add_row(name, *map(_percent, values))
        ap = published.ap(kind) if published else None
        if ap is not None:
            table.add_row('  published', f'{ap:.1f}')
            table.add_row('  difference', f'{100 * values[0] - ap:+.1f}')
    if published:
        table.caption = f'published by {published.by}'
    return table


def class_table(figures: Mapping[str, float]) -> Table:
    """The AP of each class in percent, from keys such as `coco/bbox_mAP/person`."""
    heads = {
        kind: f'coco/{kind}_mAP/'
        for kind in KINDS
        if any(key.startswith(f'coco/{kind}_mAP/') for key in figures)
    }
    table = _table([f'{KINDS[kind]} AP' for kind in heads])
    first = next(iter(heads.values()), None)
    for key in figures:
        if first and key.startswith(first):
            name = key.removeprefix(first)
            values = [figures.get(head + name, -1) for head in heads.values()]
            table.add_row(name, *map(_percent, values))
    return table


def _table(columns: Iterable[str], title: str = '') -> Table:
    table = Table('%', *columns, title=title)
    for column in table.columns[1:]:
        column.justify = 'right'
    return table


def _percent(value: float) -> str:
    return f'{100 * value:.1f}' if value >= 0 else '–'

"""COCO figures as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

_COLUMNS = {
    'AP': 'mAP',
    'AP50': 'mAP_50',
    'AP75': 'mAP_75',
    'AP S': 'mAP_s',
    'AP M': 'mAP_m',
    'AP L': 'mAP_l',
}


def ap_table(figures: Mapping[str, float], title: str = '') -> Table:
    """One row for boxes and one for masks, AP from 0 to 1.

    Args:
        figures: of a COCO metric, with keys such as `coco/bbox_mAP`. COCO gives -1 to a
            size of which there is no object; it is shown as a dash.
        title: stands above the table.
    """
    table = Table('', *_COLUMNS, title=title)
    for kind, row in (('bbox', 'box'), ('segm', 'mask')):
        values = [figures.get(f'coco/{kind}_{key}', -1) for key in _COLUMNS.values()]
        if values[0] >= 0:
            table.add_row(row, *(f'{v:.3f}' if v >= 0 else '–' for v in values))
    return table

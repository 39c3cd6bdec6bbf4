"""Tables show names as they are, and every figure whole."""

from __future__ import annotations

import pytest
from rich.console import Console

from gn_det.workbench.evaluation.ap_table import ap_table, class_table, show
from gn_det.workbench.evaluation.published import Published

NAMES = ('bottle [glass]', 'bottle [red]', 'cup [/x]', 'a [link=x]b[/link]', ':bug:\\')


def printed(table) -> str:
    console = Console(width=120, record=True)
    console.print(table)
    return console.export_text()


def test_brackets_in_names_are_no_markup():
    text = printed(class_table({f'coco/bbox_mAP/{name}': 0.5 for name in NAMES}))
    assert all(f'{name} ' in text for name in NAMES)


def test_brackets_in_titles_and_sources_are_no_markup():
    publisher = Published('a [red] zoo [/x]', 40.2, None)
    text = printed(ap_table({'coco/bbox_mAP': 0.5}, 'runs[v2]/[/r].json', publisher))
    assert 'runs[v2]/[/r].json' in text
    assert 'published by a [red] zoo [/x]' in text


@pytest.mark.parametrize('columns', ['20', '40', '80'])
def test_figures_stay_whole_on_a_narrow_terminal(monkeypatch, capsys, columns):
    monkeypatch.setenv('COLUMNS', columns)
    keys = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l', 'AR@100')
    figures = {f'coco/bbox_{key}': 0.741 + n / 100 for n, key in enumerate(keys)}
    show(ap_table(figures, 'a title', Published('someone', 40.2, None)))
    said = capsys.readouterr().out
    assert '…' not in said
    for number in ('74.1', '75.1', '76.1', '77.1', '78.1', '79.1', '80.1', '+33.9'):
        assert number in said


def test_annotations_without_an_object_are_named():
    keys = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l', 'AR@100')
    figures = {f'coco/bbox_{key}': -1.0 for key in keys}
    text = printed(ap_table(figures, 'val.json', Published('someone', 40.2, None)))
    assert 'no object to find' in text
    assert ['box', *'–' * 7] in [x.replace('│', ' ').split() for x in text.splitlines()]
    assert '40.2' not in text

"""`model_zoo.md` is what the metafiles give, one row for every config."""

from __future__ import annotations

import re

from gn_det.workbench.zoo import find, load_index
from gn_det.workbench.zoo.page import PAGE, render

ROW = re.compile(r'^\| \[([^]]+)\]\(([^)]+)\) \|', re.MULTILINE)


def row(name: str) -> list[str]:
    text = render(load_index())
    line = next(line for line in text.splitlines() if line.startswith(f'| [{name}]'))
    return [cell.strip() for cell in line.strip('|').split(' | ')]


def test_the_page_in_the_checkout_is_up_to_date(repository):
    text = (repository / PAGE).read_text(encoding='utf-8')
    assert text == render(load_index()), 'stale: run `make zoo`'


def test_every_config_has_one_row_and_every_row_one_config(repository):
    rows = ROW.findall(render(load_index()))
    configs = sorted(
        path.relative_to(repository).as_posix()
        for path in (repository / 'configs').rglob('*.py')
        if '_base_' not in path.parts
    )
    assert sorted(config for _, config in rows) == configs
    assert all(config.endswith(f'/{name}.py') for name, config in rows)


def test_published_row():
    cells = row('mask-rcnn_r50_fpn_gn-all_2x_coco')
    assert cells[1:5] == ['2x, 24 epochs', '40.2', '36.4', 'mmdetection']
    assert cells[5].startswith('40.3/35.7 (Detectron); ')
    assert cells[6:8] == ['7.1', '91 (V100)']
    assert cells[8].startswith('[8eee02a6](https://')
    assert cells[9].startswith('[log](https://')


def test_row_of_weights_that_need_conversion():
    cells = row('mask-rcnn_r50_fpn_gn-all_ms-3x_coco')
    assert cells[1] == 'ms-3x, 270,000 iterations'
    assert cells[4] == 'detectron2'
    assert cells[8].startswith('[dc5d9e](')
    assert cells[8].endswith('.pkl), detectron2')


def test_row_of_weights_without_a_hash():
    cells = row('mask-rcnn_r101_fpn_gn-all-detectron_3x_coco')
    assert cells[8].startswith('[*file*](')
    assert cells[8].endswith('.pkl), detectron')
    assert '*file* is one whose publisher gives no hash' in render(load_index())


def test_the_head_counts_what_is_published():
    words = ' '.join(render(load_index()).split())
    assert '58 configs in 7 families' in words
    assert '27 have published scores and weights, 1 was trained here' in words
    assert 'and 30 are untested' in words


def test_row_without_figures_has_dashes():
    cells = row('mask-rcnn_r101-scratch_fpn_gn-all_6x_coco')
    assert cells[2:5] == ['-', '-', '-']
    assert cells[5] == '42.7/37.6 (arXiv 1811.08883)'
    assert cells[6:] == ['-', '-', '-', '-']


def test_measured_row_says_so():
    cells = row('mask-rcnn_r18_fpn_gn-all_shapes')
    assert cells[2:5] == ['70.1', '70.2', '*measured*']


def test_all_rows_have_the_heads_number_of_cells():
    lines = [x for x in render(load_index()).splitlines() if x.startswith('| ')]
    assert {line.count(' | ') for line in lines} == {9}


def test_example_is_a_real_models():
    text = render(load_index())
    example = find('mask-rcnn_r50_fpn_gn-all_2x_coco')
    assert f'gn-det zoo download {example.name} --dest checkpoints\n' in text
    assert f'8 -m gn_det train {example.name} --launcher pytorch\n' in text

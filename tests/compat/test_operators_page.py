"""docs/operators.md lists what mmdet asks mmcv for, and says truly what it gets."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from benchmarks.operator_coverage import (
    BASIC,
    CONFIGS,
    LARGER_MAPS,
    SUPPLIED,
    decide,
    operators_behind,
    verdict,
)
from gn_det.compat import mmcv_ext
from gn_det.compat.operators import OPERATORS

mmcv_ext.install()

import mmdet  # noqa: E402  (needs `install`)
from mmcv import ops  # noqa: E402
from mmengine.registry import MODELS  # noqa: E402

PAGE = Path(mmcv_ext.__file__).parents[2] / 'docs' / 'operators.md'
REGISTERED = {
    name: layer
    for name, layer in MODELS.module_dict.items()
    if layer.__module__.startswith('mmcv.ops')
}


def names_that_mmdet_imports() -> set[str]:
    names = set()
    for path in Path(mmdet.__file__).parent.rglob('*.py'):
        if '.mim' in path.parts or 'mmcv.ops' not in path.read_text():
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and 'mmcv.ops' in (node.module or ''):
                names |= {alias.name for alias in node.names}
    return names


def names_in_configs() -> set[str]:
    texts = (path.read_text() for path in CONFIGS.rglob('*.py'))
    types = {name for text in texts for name in re.findall(r"type='(\w+)'", text)}
    return types & {*ops.__all__, *REGISTERED}


def rows() -> list[tuple[list[str], set[str], str]]:
    """Names, operators and the last column of the page's first table."""
    lines = PAGE.read_text().partition('| name |')[2].split('\n\n')[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    return [
        (re.findall(r'`(\w+)`', names), set(re.findall(r'`(\w+)`', operators)), here)
        for names, _, operators, here in cells
    ]


def behind(name: str) -> set[str]:
    """The operators of a name, without what tells forward from backward."""
    thing = REGISTERED.get(name) or getattr(ops, name, None)
    if name == 'soft_nms':
        return {'softnms'}
    if thing is None:
        files = map(
            importlib.import_module, ('mmcv.ops.carafe', 'mmcv.ops.merge_cells')
        )
        thing = next(vars(file)[name] for file in files if name in vars(file))
    return {re.sub('_(forward|backward).*', '', op) for op in operators_behind(thing)}


def test_the_table_has_every_name():
    listed = [name for names, _, _ in rows() for name in names]
    assert len(listed) == len(set(listed))
    found = names_that_mmdet_imports() | names_in_configs()
    # Only onedl's mmcv and mmdet know lines.
    assert {'line_nms', *found} == set(listed)


@pytest.mark.parametrize('row', rows(), ids=lambda row: row[0][0])
def test_the_table_is_true(row):
    names, operators, here = row
    supplied = {re.sub('_(forward|backward).*', '', name) for name in OPERATORS}
    known = [name for name in names if name != 'line_nms' or hasattr(ops, name)]
    if 'batched_nms' not in names and known:
        reached = set().union(*map(behind, known))
        # A name's file has the operators of its relatives.
        assert reached <= operators
        assert reached or not operators
    word = here.split()[0].rstrip(',:')
    if operators:
        assert word == ('supplied' if operators <= supplied else 'refused')
    else:
        assert 'mmcv' in here


@pytest.mark.parametrize(
    ('config', 'operators', 'before'),
    [
        ('retinanet/retinanet_r18_fpn_1x_coco.py', 'sigmoid_focal_loss', (True, False)),
        (
            'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
            'ms_deform_attn',
            (False, False),
        ),
        ('dyhead/atss_r50_fpn_dyhead_1x_coco.py', LARGER_MAPS, (False, False)),
        ('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'roi_align', (True, True)),
    ],
)
def test_coverage_reads_a_config(config, operators, before):
    result, reached = decide(config)
    assert result == 'built'
    assert any(name.startswith(operators) for name in reached)
    assert not any(name.startswith('carafe') for name in reached)
    assert verdict(reached, BASIC, cuda=True) == before
    assert verdict(reached, SUPPLIED, cuda=True) == (True, True)

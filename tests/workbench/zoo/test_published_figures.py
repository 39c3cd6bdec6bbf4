"""Every published figure, address and hash, against the publisher's or a second copy.

Rows that mmdetection has too are compared with its own metafiles, as installed. The
facts of the rest stand here once more, so that a slip in a metafile is seen.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import mmdet
import pytest
import yaml

from gn_det.workbench.zoo import Model, load_index

MODELS = {model.config: model for model in load_index()}
PUBLISHED = {c: m for c, m in MODELS.items() if m.status == 'published'}
UPSTREAM = Path(mmdet.__file__).parent / '.mim' / 'configs'


def upstream_models() -> dict[str, dict]:
    """Config → entry of mmdetection's metafiles."""
    return {
        unquote(entry['Config']): entry
        for family in ('gn', 'gn+ws', 'scratch')
        for entry in yaml.safe_load(
            (UPSTREAM / family / 'metafile.yml').read_text(encoding='utf-8')
        )['Models']
    }


THEIRS = upstream_models()


class Facts(NamedTuple):
    """Figures, memory in GB, milliseconds, and what tells the address from others."""

    box_ap: float
    mask_ap: float
    memory_gb: float | None
    inference_ms: float
    address: str


HOMES = {
    'Detectron': 'https://dl.fbaipublicfiles.com/detectron/GN/',
    'detectron2': 'https://dl.fbaipublicfiles.com/detectron2/Misc/',
}
# projects/GN/README.md of Detectron, MODEL_ZOO.md of detectron2.
ELSEWHERES = {
    'detectron/mask-rcnn_r50_fpn_gn-all-detectron_2x': Facts(
        40.3, 35.7, 10.5, 146, 'R-50-FPN_2x_gn_0416.13_23_38.bTlTI97Q 48616381'
    ),
    'detectron/mask-rcnn_r50_fpn_gn-all-detectron_3x': Facts(
        40.8, 36.1, 10.5, 145, 'R-50-FPN_3x_gn_0417.09_54_59.nwCTtPVk 48734751'
    ),
    'detectron/mask-rcnn_r101_fpn_gn-all-detectron_2x': Facts(
        41.8, 36.8, 12.4, 180, 'R-101-FPN_2x_gn_0416.13_26_34.GLnri4GR 48616724'
    ),
    'detectron/mask-rcnn_r101_fpn_gn-all-detectron_3x': Facts(
        42.3, 37.2, 12.4, 180, 'R-101-FPN_3x_gn_0417.09_55_23.HMtcR8wg 48734779'
    ),
    'gn/mask-rcnn_r50_fpn_gn-all_ms-3x': Facts(
        42.6, 38.6, 5.6, 60, '/mask_rcnn_R_50_FPN_3x_gn/ 138602888 _dc5d9e.pkl'
    ),
    'scratch/mask-rcnn_r50-scratch_fpn_gn-all_ms-3x': Facts(
        39.9, 36.6, 7.2, 61, '/scratch_mask_rcnn_R_50_FPN_3x_gn/ 138602908 _01ca85.pkl'
    ),
    'scratch/mask-rcnn_r50-scratch_fpn_gn-all_8xb8-ms-9x': Facts(
        43.7, 39.6, None, 61, '/scratch_mask_rcnn_R_50_FPN_9x_gn/ 183808979 _da7b4c.pkl'
    ),
}
# Other code bases' figures: README.md and MODEL_ZOO.md of each, and the papers' tables.
COMPARED = {
    'gn/mask-rcnn_r50_fpn_gn-all_2x': [
        ('Detectron', 40.3, 35.7),
        ('tensorpack', 40.4, 36.3),
        ('maskrcnn-benchmark', 40.2, 36.0),
    ],
    'gn/mask-rcnn_r50_fpn_gn-all_3x': [('Detectron', 40.8, 36.1)],
    'gn/mask-rcnn_r101_fpn_gn-all_2x': [('Detectron', 41.8, 36.8)],
    'gn/mask-rcnn_r101_fpn_gn-all_3x': [('Detectron', 42.3, 37.2)],
    'gn/mask-rcnn_r50-bn_fpn_gn-neck-heads_ms-2x': [
        ('PaddleDetection, another backbone', 42.3, 38.4)
    ],
    'gn/cascade-mask-rcnn_r50_fpn_gn-all_2x': [
        ('tensorpack, 4x with scale jitter', 46.1, 40.1)
    ],
    'scratch/mask-rcnn_r50-scratch_fpn_gn-all_3x': [
        ('Detectron', 39.5, 35.2),
        ('maskrcnn-benchmark', 38.9, 35.1),
    ],
    'scratch/mask-rcnn_r101-scratch_fpn_gn-all_3x': [('Detectron', 41.0, 36.4)],
    'scratch/mask-rcnn_r50-scratch_fpn_gn-all_6x': [('arXiv 1811.08883', 41.3, 36.6)],
    'scratch/mask-rcnn_r101-scratch_fpn_gn-all_6x': [('arXiv 1811.08883', 42.7, 37.6)],
    'scratch/mask-rcnn_r101-scratch_fpn_gn-all_8xb8-ms-9x': [
        ('arXiv 1811.08883, batch 16', 45.0, 39.5)
    ],
    'c4/mask-rcnn_r50-caffe-c4_bn_2x': [
        ('arXiv 1803.08494, table 4', 37.7, 32.8),
        ('Detectron', 37.8, 32.8),
    ],
    'c4/mask-rcnn_r50-c4_gn-all_2x': [('arXiv 1803.08494, table 4', 38.8, 33.6)],
    'ablation/mask-rcnn_r50-bn_fpn_2x': [('Detectron', 38.6, 34.5)],
    'ablation/mask-rcnn_r50-bn_fpn_3x': [('Detectron', 38.9, 34.3)],
    'ablation/mask-rcnn_r101-bn_fpn_2x': [('Detectron', 40.9, 36.4)],
    'ablation/mask-rcnn_r50-bn_fpn_4conv1fc_2x': [
        ('arXiv 1803.08494, table 5', 38.6, 34.2),
        ('Detectron', 38.8, 34.4),
    ],
    'ablation/mask-rcnn_r50-bn_fpn_gn-bbox-head_2x': [
        ('arXiv 1803.08494, table 5', 39.5, 34.4)
    ],
    'ablation/mask-rcnn_r50_fpn_gn-backbone-bbox-head_2x': [
        ('arXiv 1803.08494, table 5', 40.0, 34.8)
    ],
}


def config_of(key: str) -> str:
    return f'configs/{key}_coco.py'


def test_every_published_row_is_checked_here():
    listed = {*THEIRS, *map(config_of, ELSEWHERES)}
    assert set(PUBLISHED) == listed
    assert (len(THEIRS), len(ELSEWHERES)) == (20, 7)


@pytest.mark.parametrize('config', sorted(THEIRS))
def test_row_is_mmdetections(config):
    model, theirs = MODELS[config], THEIRS[config]
    figures = {
        metric: value
        for result in theirs['Results']
        for metric, value in result['Metrics'].items()
    }
    metadata = theirs['Metadata']
    speeds = metadata.get('inference time (ms/im)', [{}])
    assert model.source.startswith('mmdetection, ')
    assert (model.box_ap, model.mask_ap) == (
        figures['box AP'],
        figures.get('mask AP'),
    )
    assert model.memory_gb == metadata.get('Training Memory (GB)')
    assert model.inference_ms == speeds[0].get('value')
    assert model.inference_hardware == speeds[0].get('hardware')
    assert model.weights.url == theirs['Weights']
    assert theirs['Name'] in (model.name, model.upstream_name)


@pytest.mark.parametrize('key', ELSEWHERES)
def test_row_is_its_publishers(key):
    model, facts = MODELS[config_of(key)], ELSEWHERES[key]
    assert (model.box_ap, model.mask_ap) == (facts.box_ap, facts.mask_ap)
    assert (model.memory_gb, model.inference_ms) == (
        facts.memory_gb,
        facts.inference_ms,
    )
    publisher = model.source.partition(',')[0]
    assert publisher.lower() == model.weights.format
    assert model.weights.url.startswith(HOMES[publisher])
    assert all(part in model.weights.url for part in facts.address.split())


@pytest.mark.parametrize('model', PUBLISHED.values(), ids=lambda model: model.name)
def test_hash_is_the_one_in_the_address(model: Model):
    weights = model.weights
    digits = weights.sha256 or weights.md5
    assert (digits is None) == (weights.format == 'detectron')
    if digits is not None:
        separator = '-' if weights.sha256 else '_'
        assert f'{separator}{digits}.p' in weights.url


def test_figures_of_other_code_bases():
    found = {
        config: [(f.by, f.box_ap, f.mask_ap) for f in model.elsewhere]
        for config, model in MODELS.items()
        if model.elsewhere
    }
    assert found == {config_of(key): rows for key, rows in COMPARED.items()}

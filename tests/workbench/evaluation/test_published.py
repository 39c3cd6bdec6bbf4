"""The zoo's figures stand beside an evaluation only where they can be compared."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from gn_det.workbench.errors import UserError
from gn_det.workbench.evaluation.ap_table import ap_table, class_table
from gn_det.workbench.evaluation.evaluators import set_up_evaluation
from gn_det.workbench.evaluation.published import Published, published_scores
from gn_det.workbench.inputs.config import load_config
from gn_det.workbench.runtime.runner import enable_channels_last
from gn_det.workbench.runtime.tta import enable_tta
from tests.running import CONFIG, REPOSITORY

R50 = 'configs/gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py'


@pytest.fixture
def val2017(tmp_path):
    """A file of the name and the number of images of val2017."""
    path = tmp_path / 'instances_val2017.json'
    path.write_text(json.dumps(dict(images=[dict(id=i) for i in range(5000)])))
    return path


def printed(table) -> str:
    console = Console(width=100, record=True)
    console.print(table)
    return console.export_text()


@pytest.mark.parametrize('absolute', [False, True])
def test_figures_of_a_config_of_the_zoo(val2017, monkeypatch, absolute):
    monkeypatch.chdir(REPOSITORY)
    found = published_scores(REPOSITORY / R50 if absolute else R50, val2017)
    assert isinstance(found, Published)
    assert (found.ap('bbox'), found.ap('segm')) == (40.2, 36.4)
    assert found.by.startswith('mmdetection')


def test_part_of_val2017_is_not_val2017(val2017):
    content = json.loads(val2017.read_text())
    val2017.write_text(json.dumps(dict(images=content['images'][:-1])))
    found = published_scores(REPOSITORY / R50, val2017)
    assert 'not comparable' in found
    assert 'box AP 40.2, mask AP 36.4' in found
    assert str(val2017) in found


def test_another_set_and_another_config(val2017, tmp_path):
    other = tmp_path / 'instances_minival.json'
    other.write_text(val2017.read_text())
    assert 'not comparable' in published_scores(REPOSITORY / R50, other)
    assert 'not in the zoo' in published_scores(tmp_path / 'mine.py', val2017)
    found = published_scores(REPOSITORY / CONFIG, val2017)
    assert 'generated shapes' in found


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        ({'model.test_cfg.rcnn.max_per_img': 20}, 'rcnn.max_per_img is 20, not 100'),
        ({'model.test_cfg.rcnn.nms.iou_threshold': 0.6}, 'iou_threshold is 0.6, not'),
        (
            {'test_evaluator.iou_thrs': [0.5]},
            'test_evaluator.iou_thrs.0 is 0.5, not abs',
        ),
        (
            {'test_dataloader.dataset.pipeline.1.scale': (667, 400)},
            'pipeline.1.scale.0 is 667, not 1333, and 1 more',
        ),
        ({'test_dataloader.dataset.indices': 10}, 'dataset.indices is 10, not absent'),
    ],
)
def test_figures_of_other_settings_are_not_comparable(val2017, options, said):
    cfg = load_config(str(REPOSITORY / R50), options)
    found = published_scores(cfg.filename, val2017, cfg)
    assert found.startswith('not comparable: the zoo has box AP 40.2, mask AP 36.4 for')
    assert said in found
    assert '\n' not in found


def test_tta_is_not_comparable(val2017):
    cfg = load_config(str(REPOSITORY / R50), {'test_evaluator.metric': 'bbox'})
    enable_tta(cfg)
    found = published_scores(cfg.filename, val2017, cfg)
    assert 'not comparable: the zoo has' in found
    assert "model.type is 'BoxTTAModel', not 'FusedMaskRCNN'" in found


def test_settings_without_an_effect_on_ap_are_comparable(val2017, tmp_path):
    options = {
        'data_root': str(tmp_path),
        'test_evaluator.metric': 'bbox',
        'test_dataloader.batch_size': 4,
        'test_dataloader.num_workers': 0,
        'model.recompute': True,
        'train_cfg.max_epochs': 3,
        'randomness.seed': 3,
    }
    cfg = load_config(str(REPOSITORY / R50), options, str(tmp_path / 'work'))
    enable_channels_last(cfg)
    set_up_evaluation(cfg, classwise=True, evaluator='pycocotools')
    found = published_scores(cfg.filename, val2017, cfg)
    assert isinstance(found, Published), found


def test_a_broken_zoo_does_not_cost_the_evaluation(val2017, monkeypatch):
    def broken():
        raise UserError('metafile.yml: Models: is missing')

    monkeypatch.setattr('gn_det.workbench.evaluation.published.load_index', broken)
    found = published_scores(REPOSITORY / R50, val2017)
    assert found == 'nothing to compare with: metafile.yml: Models: is missing'


def test_published_row_and_difference():
    figures = {'coco/bbox_mAP': 0.3991, 'coco/segm_mAP': 0.37, 'coco/bbox_AR@100': -1}
    rows = printed(ap_table(figures, 'a title', Published('someone', 40.2, 36.4)))
    lines = [line.replace('│', ' ').split() for line in rows.splitlines()]
    assert ['box', '39.9', *'–' * 6] in lines
    assert ['published', '40.2'] in lines
    assert ['difference', '-0.3'] in lines
    assert ['difference', '+0.6'] in lines
    assert 'published by someone' in rows


def test_class_table_has_one_row_a_class():
    figures = {
        'coco/bbox_mAP': 0.5,
        'coco/bbox_mAP/cup': 0.25,
        'coco/bbox_mAP/wine glass': -1.0,
        'coco/segm_mAP/cup': 0.125,
        'coco/segm_mAP/wine glass': 0.5,
    }
    text = printed(class_table(figures))
    lines = [line.replace('│', ' ').split() for line in text.splitlines()]
    assert ['cup', '25.0', '12.5'] in lines
    assert ['wine', 'glass', '–', '50.0'] in lines

"""COCO figures: perfect, empty and partial results."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from mmdet.registry import METRICS
from mmengine.logging import MMLogger
from pycocotools.coco import COCO

import gn_det.workbench.evaluation  # noqa: F401  (registers the metric)
from gn_det.workbench.errors import UserError
from gn_det.workbench.evaluation.coco_scores import EVALUATORS, Comparison

KEYS = [
    f'coco/{kind}_{item}'
    for kind in ('bbox', 'segm')
    for item in ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l', 'AR@100')
]


def sample(coco: COCO, image_id: int, keep: float) -> dict:
    """The truth of an image as a prediction, the first share of it."""
    record = coco.imgs[image_id]
    anns = coco.loadAnns(coco.getAnnIds(image_id, iscrowd=False))
    anns = anns[: int(len(anns) * keep)]
    boxes = np.array([a['bbox'] for a in anns], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    masks = [coco.annToMask(a) for a in anns]
    shape = (0, record['height'], record['width'])
    return dict(
        img_id=image_id,
        ori_shape=(record['height'], record['width']),
        pred_instances=dict(
            bboxes=torch.from_numpy(boxes),
            scores=torch.ones(len(anns)),
            labels=torch.tensor([a['category_id'] - 1 for a in anns], dtype=torch.long),
            masks=torch.tensor(np.array(masks).reshape(len(anns), *shape[1:])).bool(),
        ),
    )


def build(ann_file, **options):
    options = dict(metric=['bbox', 'segm']) | options
    metric = METRICS.build(dict(type='CocoAPMetric', ann_file=str(ann_file), **options))
    metric.dataset_meta = dict(classes=('circle', 'square', 'triangle'))
    return metric


def evaluate(shapes, keep: float, **options) -> dict[str, float]:
    ann_file = str(shapes / 'annotations/instances_train.json')
    metric = build(ann_file, **options)
    coco = COCO(ann_file)
    metric.process({}, [sample(coco, image_id, keep) for image_id in coco.imgs])
    return metric.evaluate(size=len(coco.imgs))


def test_truth_as_prediction_is_perfect(shapes):
    figures = evaluate(shapes, keep=1.0)
    assert figures['coco/bbox_mAP'] == 1.0
    assert figures['coco/segm_mAP'] == 1.0


def test_half_of_the_truth_is_not(shapes):
    assert 0 < evaluate(shapes, keep=0.5)['coco/bbox_mAP'] < 1


def test_nothing_detected_is_zero_and_said_in_a_sentence(shapes, monkeypatch):
    said = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text: said.append(text))
    figures = evaluate(shapes, keep=0.0)
    assert figures == dict.fromkeys(KEYS, 0.0)
    assert len(said) == 1
    assert 'detected nothing in 12 images' in said[0]


def test_nothing_detected_gives_the_figures_asked_for(shapes):
    figures = evaluate(shapes, keep=0.0, metric_items=['mAP'])
    assert figures == {'coco/bbox_mAP': 0.0, 'coco/segm_mAP': 0.0}


@pytest.mark.parametrize('keep', [0.0, 1.0])
def test_proposal_figures_have_the_same_names_with_and_without_results(shapes, keep):
    ann_file = str(shapes / 'annotations/instances_train.json')
    figures = {}
    for share in (keep, 1.0):
        metric = build(ann_file, metric=['proposal'])
        coco = COCO(ann_file)
        metric.process({}, [sample(coco, i, share) for i in coco.imgs])
        figures[share] = set(metric.evaluate(size=len(coco.imgs)))
    assert figures[keep] == figures[1.0]


@pytest.mark.parametrize('evaluator', EVALUATORS)
def test_figures_are_those_of_mmdets_metric(shapes, evaluator):
    ann_file = str(shapes / 'annotations/instances_train.json')
    found = {}
    for kind, options in (
        ('CocoMetric', {}),
        ('CocoAPMetric', dict(evaluator=evaluator)),
    ):
        metric = METRICS.build(
            dict(type=kind, ann_file=ann_file, metric=['bbox', 'segm'], **options)
        )
        metric.dataset_meta = dict(classes=('circle', 'square', 'triangle'))
        coco = COCO(ann_file)
        metric.process({}, [sample(coco, i, 0.6) for i in coco.imgs])
        found[kind] = metric.evaluate(size=len(coco.imgs))
    ours = {key: round(value, 3) for key, value in found['CocoAPMetric'].items()}
    assert 0 < ours['coco/segm_mAP'] < 1
    assert found['CocoMetric'].items() <= ours.items()


def test_results_are_kept_and_give_the_same_figures(shapes, tmp_path):
    prefix = tmp_path / 'new' / 'results'
    for keep in (0.9, 0.5):
        figures = evaluate(shapes, keep, outfile_prefix=str(prefix))
    files = sorted(path.name for path in prefix.parent.iterdir())
    names = [f'results.{kind}.json' for kind in ('bbox', 'scores', 'segm')]
    assert files == names
    truth = json.loads((shapes / 'annotations/instances_train.json').read_text())
    for kind in ('bbox', 'segm'):
        results = json.loads((tmp_path / f'new/results.{kind}.json').read_text())
        again = Comparison(truth, results, kind).scores().values
        assert figures[f'coco/{kind}_mAP'] == again['mAP']


def test_a_write_cut_short_leaves_the_earlier_results(shapes, tmp_path, monkeypatch):
    prefix = str(tmp_path / 'results')
    evaluate(shapes, 1.0, outfile_prefix=prefix)
    before = (tmp_path / 'results.bbox.json').read_bytes()

    def full_disk(content, file):
        Path(file).write_text('[{"image_id"')
        raise OSError('no space left')

    monkeypatch.setattr('mmdet.evaluation.metrics.coco_metric.dump', full_disk)
    with pytest.raises(OSError, match='no space left'):
        evaluate(shapes, 0.5, outfile_prefix=prefix)
    assert (tmp_path / 'results.bbox.json').read_bytes() == before
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f'results.{kind}.json' for kind in ('bbox', 'scores', 'segm')]


def test_ap_of_each_class(shapes):
    figures = evaluate(shapes, 0.7, classwise=True)
    for kind in ('bbox', 'segm'):
        classes = [figures[f'coco/{kind}_mAP/{n}'] for n in ('circle', 'square')]
        classes.append(figures[f'coco/{kind}_mAP/triangle'])
        assert figures[f'coco/{kind}_mAP'] == pytest.approx(np.mean(classes))
        assert len(set(classes)) > 1


def test_results_for_a_server_need_no_annotations(shapes, tmp_path):
    content = json.loads((shapes / 'annotations/instances_train.json').read_text())
    truth = COCO(str(shapes / 'annotations/instances_train.json'))
    del content['annotations']
    bare = tmp_path / 'image_info_test-dev.json'
    bare.write_text(json.dumps(content))
    metric = build(bare, format_only=True, outfile_prefix=str(tmp_path / 'results'))
    metric.process({}, [sample(truth, i, 1.0) for i in truth.imgs])
    assert metric.evaluate(size=len(truth.imgs)) == {}
    results = json.loads((tmp_path / 'results.segm.json').read_text())
    found = Comparison(truth.dataset, results, 'segm').scores()
    assert found.values['mAP'] == 1.0


def test_truth_from_the_samples(shapes):
    """Without an annotation file the images bring their objects along."""
    coco = COCO(str(shapes / 'annotations/instances_train.json'))
    metric = METRICS.build(dict(type='CocoAPMetric', metric='bbox'))
    metric.dataset_meta = dict(classes=('circle', 'square', 'triangle'))
    samples = [sample(coco, i, 0.8) for i in coco.imgs]
    for one in samples:
        anns = coco.loadAnns(coco.getAnnIds(one['img_id']))
        one['instances'] = [
            dict(
                bbox=[*a['bbox'][:2], *np.add(a['bbox'][:2], a['bbox'][2:]).tolist()],
                bbox_label=a['category_id'] - 1,
                ignore_flag=a['iscrowd'],
            )
            for a in anns
        ]
    metric.process({}, samples)
    figures = metric.evaluate(size=len(samples))
    assert figures['coco/bbox_mAP'] == evaluate(shapes, 0.8)['coco/bbox_mAP']


@pytest.mark.parametrize('evaluator', EVALUATORS)
def test_predictions_that_are_no_numbers_are_left_out_and_counted(
    shapes, monkeypatch, evaluator
):
    said = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text: said.append(text))
    expected = evaluate(shapes, 1.0, metric='bbox')
    ann_file = str(shapes / 'annotations/instances_train.json')
    coco = COCO(ann_file)
    samples = [sample(coco, image_id, 1.0) for image_id in coco.imgs]
    for one in samples[:3]:
        found = one['pred_instances']
        for key in ('bboxes', 'scores', 'labels', 'masks'):
            found[key] = torch.cat([found[key][:1], found[key]])
        found['bboxes'][0, 2] = float('nan')
        found['scores'][0] = 2.0
    metric = build(ann_file, metric='bbox', evaluator=evaluator)
    metric.process({}, samples)
    assert metric.evaluate(size=len(samples)) == pytest.approx(expected, abs=1e-12)
    assert len(said) == 1
    assert '3 of' in said[0]


def test_mistakes_are_named(shapes):
    ann_file = shapes / 'annotations/instances_train.json'
    with pytest.raises(UserError, match="evaluator='numpy' is unknown"):
        build(ann_file, evaluator='numpy')
    with pytest.raises(UserError, match='metric_items: AP of'):
        build(ann_file, metric_items=['AP'])
    metric = build(ann_file)
    coco = COCO(str(ann_file))
    samples = [sample(coco, i, 1.0) for i in coco.imgs]
    for one in samples:
        del one['pred_instances']['masks']
    metric.process({}, samples)
    with pytest.raises(UserError, match='predicts no masks'):
        metric.evaluate(size=len(samples))


def _evaluate_share(rank: int, world: int, shapes, folder, keep: float) -> None:
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=world
    )
    metric = build(
        shapes / 'annotations/instances_train.json',
        outfile_prefix=f'{folder}/results',
        classwise=True,
    )
    metric.collect_dir = f'{folder}/collected'
    coco = COCO(str(shapes / 'annotations/instances_train.json'))
    # Eleven images for two ranks: the first is evaluated twice and counts once.
    ids = [*list(coco.imgs)[:11], *list(coco.imgs)[:1]][rank::world]
    metric.process({}, [sample(coco, image_id, keep) for image_id in ids])
    figures = metric.evaluate(size=11)
    with open(f'{folder}/rank{rank}.json', 'w') as file:
        json.dump(figures, file)
    dist.destroy_process_group()


def test_two_processes_give_the_figures_of_one_to_the_last_digit(shapes, tmp_path):
    processes = multiprocessing.get_context('fork')
    ranks = [
        processes.Process(target=_evaluate_share, args=(r, 2, shapes, tmp_path, 0.7))
        for r in range(2)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout=120)
        assert process.exitcode == 0
    first, second = (
        json.loads((tmp_path / f'rank{r}.json').read_text()) for r in range(2)
    )
    assert first == second
    ann_file = shapes / 'annotations/instances_train.json'
    metric = build(ann_file, classwise=True, outfile_prefix=str(tmp_path / 'alone'))
    coco = COCO(str(ann_file))
    metric.process({}, [sample(coco, i, 0.7) for i in list(coco.imgs)[:11]])
    assert metric.evaluate(size=11) == first
    for kind in ('bbox', 'segm'):
        alone = (tmp_path / f'alone.{kind}.json').read_bytes()
        assert (tmp_path / f'results.{kind}.json').read_bytes() == alone

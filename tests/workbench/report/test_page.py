"""The page holds what the run left, says what it lacks, and runs nothing."""

from __future__ import annotations

import base64
import json
import os
import shutil

import pytest
from PIL import Image

from gn_det.workbench.errors import UserError
from gn_det.workbench.report import (
    check_runs,
    report_at_end,
    write_comparison,
    write_report,
)
from gn_det.workbench.report import page as page_module
from tests.workbench.report.pages import Page

NEED_RESULTS = ('Classes', 'Precision and recall', 'Images')


def test_whole_run(whole_report):
    page = Page(whole_report)
    assert not any(page.missing.values())
    assert {name: len(images) for name, images in page.images.items()} == {
        'Average precision': 0, 'Training curves': 3, 'Classes': 1,
        'Precision and recall': 1, 'Memory and speed': 1, 'Images': 4,
        'Environment': 0, 'Config': 0,
    }  # fmt: skip
    assert 'finished, 2 epochs' in whole_report.read_text()
    row = 'box, last validation (2) 0.400 – – – – –'
    assert row in page.sections['Average precision']
    assert '0.500 s' in page.sections['Memory and speed']
    assert '8.00' in page.sections['Memory and speed']
    assert '2.00 GiB' in page.sections['Memory and speed']
    assert 'NVIDIA H200' in page.sections['Environment']
    assert 'mmdet 3.3.0' in page.sections['Environment']
    assert "type='FusedGN'" in page.sections['Config']


def test_one_file_without_network(whole_report):
    assert whole_report.stat().st_size < 3 * 2**20
    page = Page(whole_report)
    for tag, attributes in page.tags:
        assert tag not in ('script', 'iframe', 'object')
        for name in ('src', 'href'):
            target = attributes.get(name) or 'data:'
            assert target.startswith(('data:', '#part-')), (tag, target[:80])


def test_pictures_are_whole_images(whole_report, tmp_path):
    page = Page(whole_report)
    for source in page.images['Images']:
        path = tmp_path / 'picture.jpg'
        path.write_bytes(
            base64.b64decode(source.removeprefix('data:image/jpeg;base64,'))
        )
        with Image.open(path) as image:
            image.load()
            assert image.width > image.height


def test_names_are_text_and_not_markup(make_run, tmp_path, shapes):
    evil = '<script>alert("$x$")</script> & $'
    moved = tmp_path / 'moved'
    shutil.copytree(shapes, moved)
    file = moved / 'annotations/instances_val.json'
    content = json.loads(file.read_text())
    content['categories'][0]['name'] = evil
    # Nothing of it is in the images: the name stands in the note of absent classes.
    content['annotations'] = [a for a in content['annotations'] if a['category_id'] > 1]
    content['images'][0]['file_name'] = f'{evil.replace("/", "")}.jpg'
    file.write_text(json.dumps(content))
    first = moved / 'val' / content['images'][0]['file_name']
    shutil.copy(next((moved / 'val').glob('*.jpg')), first)
    names = tuple(category['name'] for category in content['categories'])
    options = {'val_dataloader.dataset.metainfo.classes': names}
    path = write_report(make_run('<b>run & co', moved, **options))
    page = Page(path)
    assert 'script' not in {tag for tag, _ in page.tags}
    assert evil in page.sections['Classes']
    assert evil in page.sections['Config']
    assert '<h1>&lt;b&gt;run &amp; co</h1>' in path.read_text()


def test_class_with_markup_is_drawn(make_run, tmp_path, shapes):
    moved = tmp_path / 'moved'
    shutil.copytree(shapes, moved)
    file = moved / 'annotations/instances_val.json'
    content = json.loads(file.read_text())
    for category in content['categories']:
        category['name'] = f'$_{category["id"]}^$ <b>&'
    file.write_text(json.dumps(content))
    names = tuple(category['name'] for category in content['categories'])
    run = make_run(**{'val_dataloader.dataset.metainfo.classes': names})
    page = Page(write_report(run, str(moved)))
    assert not any(page.missing.values())


@pytest.mark.parametrize('broken', ['absent', 'half', 'empty'])
def test_results_that_are_not_there(make_run, broken):
    work_dir = make_run()
    for file in work_dir.glob('val.*.json'):
        if broken == 'absent':
            file.unlink()
        else:
            content = file.read_text()
            file.write_text('[]' if broken == 'empty' else content[: len(content) // 2])
    page = Page(write_report(work_dir))
    said = {'absent': 'tools/test.py', 'half': 'is not JSON', 'empty': 'no detection'}
    for section in NEED_RESULTS:
        assert said[broken] in ' '.join(page.missing[section])
    assert page.images['Training curves']


def test_masks_may_be_missing(make_run):
    work_dir = make_run()
    (work_dir / 'val.segm.json').unlink()
    page = Page(write_report(work_dir))
    assert 'masks' in page.missing['Classes'][0]
    assert len(page.images['Images']) == 4
    assert 'boxes that score' in page.sections['Images']


def test_data_that_moved_away(make_run, shapes, tmp_path):
    gone = tmp_path / 'gone'
    work_dir = make_run(data_root=gone)
    page = Page(write_report(work_dir))
    for section in NEED_RESULTS:
        assert '--data-root' in page.missing[section][0]
        assert str(gone) in page.missing[section][0]
    page = Page(write_report(work_dir, str(shapes)))
    assert not any(page.missing.values())


def test_annotations_without_images(make_run, shapes, tmp_path):
    moved = tmp_path / 'moved'
    shutil.copytree(shapes / 'annotations', moved / 'annotations')
    page = Page(write_report(make_run(data_root=moved)))
    assert page.images['Classes']
    assert 'image not found' in page.missing['Images'][0]


def test_only_the_classes_of_the_model_count(make_run, shapes):
    """Classes, curves and images are of what the metric evaluated, and of no more."""
    work_dir = make_run(**{'val_dataloader.dataset.metainfo.classes': ('square',)})
    for kind in ('bbox', 'segm'):
        file = work_dir / f'val.{kind}.json'
        found = [one for one in json.loads(file.read_text()) if one['category_id'] == 2]
        file.write_text(json.dumps(found))
    page = Page(write_report(work_dir))
    assert not any(page.missing.values()), page.missing
    assert 'Without objects' not in page.sections['Classes']


def test_an_image_that_cannot_be_read_costs_no_other(make_run, shapes, tmp_path):
    moved = tmp_path / 'moved'
    shutil.copytree(shapes, moved)
    first, second = sorted((moved / 'val').glob('*.jpg'))[:2]
    first.write_bytes(b'')
    second.unlink()
    page = Page(write_report(make_run(data_root=moved)))
    assert len(page.images['Images']) == 2
    assert {str(p) for p in (first, second)} == {
        reason.rsplit(' ', 1)[-1] for reason in page.missing['Images']
    }


def test_results_that_are_something_else(make_run):
    work_dir = make_run()
    (work_dir / 'val.segm.json').write_text('{"images": []}')
    page = Page(write_report(work_dir))
    assert 'it holds a dict; expected a list' in page.missing['Classes'][0]
    assert len(page.images['Images']) == 4


def test_odd_lines_of_a_log(make_run):
    work_dir = make_run()
    scalars = work_dir / '20261121_100000/vis_data/scalars.json'
    odd = '5\n[1]\n{"loss": 1}\n{"loss": "x", "iter": 2}\n{"coco/bbox_mAP": 1}\nnull\n'
    scalars.write_bytes(odd.encode() + b'\xff\n' + scalars.read_bytes())
    (work_dir / '20261121_100001').mkdir()
    (work_dir / '20261121_100001/20261121_100001.json').write_text('[1]')
    page = Page(write_report(work_dir))
    assert not any(page.missing.values()), page.missing


def test_a_section_that_fails_costs_no_other(make_run, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError('of all things')

    monkeypatch.setattr(page_module.figures, 'losses', broken)
    page = Page(write_report(make_run()))
    assert 'ZeroDivisionError' in page.missing['Training curves'][0]
    assert page.images['Images']


def test_masks_of_an_earlier_evaluation_are_not_shown(make_run):
    work_dir = make_run()
    boxes = work_dir / 'results.bbox.json'
    shutil.copy(work_dir / 'val.bbox.json', boxes)
    os.utime(boxes, (2e9, 2e9))
    page = Page(write_report(work_dir))
    assert 'no results.segm.json beside' in page.missing['Classes'][0]
    assert 'From results.bbox.json' in page.sections['Classes']
    assert 'boxes that score' in page.sections['Images']


def test_a_place_that_cannot_be_written(make_run):
    work_dir = make_run()
    (work_dir / 'report.html').mkdir()
    with pytest.raises(UserError, match=r'cannot write .*report\.html: Is a directory'):
        write_report(work_dir)


def test_runs_are_looked_at_before_anything_is_written(make_run, tmp_path):
    run = make_run()
    with pytest.raises(UserError, match='is named twice'):
        check_runs([run, tmp_path / '.' / run.name])
    with pytest.raises(UserError, match='nothere'):
        check_runs([run, tmp_path / 'nothere'])


def test_killed_run(make_run):
    work_dir = make_run(**{'train_cfg.max_epochs': 9})
    scalars = work_dir / '20261121_100000/vis_data/scalars.json'
    lines = scalars.read_text().splitlines()
    scalars.write_text('\n'.join(lines[:5]) + '\n{"loss": 0.')
    path = write_report(work_dir)
    assert 'not finished: 1 of 9 epochs, last logged iteration 4' in path.read_text()


def test_nothing_but_losses(make_run):
    work_dir = make_run()
    for file in [*work_dir.glob('val.*'), *work_dir.rglob('*.log')]:
        file.unlink()
    (work_dir / '20261121_100000/vis_data/config.py').write_text('model = dict(')
    scalars = work_dir / '20261121_100000/vis_data/scalars.json'
    scalars.write_text(scalars.read_text().splitlines()[0])
    page = Page(write_report(work_dir))
    assert {name for name, reasons in page.missing.items() if not reasons} == {
        'Memory and speed',
        'Config',
    }
    assert len(page.images['Training curves']) == 2


def test_no_run(tmp_path):
    with pytest.raises(UserError, match='no training log under'):
        write_report(tmp_path)
    with pytest.raises(UserError, match='work directory not found'):
        write_report(tmp_path / 'nowhere')


def test_comparison(make_run, tmp_path):
    runs = [
        make_run('one'),
        make_run('two', seed=1, **{'train_dataloader.batch_size': 2}),
    ]
    path = write_comparison(runs, tmp_path / 'out' / 'both.html')
    page = Page(path)
    rows = page.sections['Precision and speed']
    assert '0.400' in rows
    assert '0.410' in rows
    assert len(page.images['Training curves']) == 3
    differing = [
        line for line in page.sections['Settings that differ'].splitlines() if line
    ]
    assert any('train_dataloader.batch_size 4 2' in line for line in differing)
    # The data and the model are the same.
    assert not any('norm_cfg' in line for line in differing)


def test_variables_of_a_config_are_no_settings(make_run, tmp_path):
    runs = [
        make_run('one'),
        make_run('two', **{'metainfo.classes': ('a',), 'own': 1, 'randomness.seed': 3}),
    ]
    page = Page(write_comparison(runs, tmp_path / 'both.html'))
    said = page.sections['Settings that differ']
    assert 'randomness.seed' in said
    assert 'metainfo' not in said
    assert 'own' not in said.split()


def test_comparison_of_folders_of_one_name(make_run, tmp_path):
    runs = [make_run('a/run'), make_run('b/run')]
    page = Page(write_comparison(runs, tmp_path / 'both.html'))
    assert all(str(run) in page.sections['Precision and speed'] for run in runs)
    assert 'None: the configs are the same.' in page.sections['Settings that differ']


@pytest.mark.parametrize('error', [KeyboardInterrupt, RuntimeError])
def test_report_of_a_run_that_was_cut_short(make_run, error):
    work_dir = make_run()
    with pytest.raises(error), report_at_end(work_dir):
        raise error
    assert (work_dir / 'report.html').is_file()


def test_training_does_not_fail_for_a_report(make_run, monkeypatch):
    work_dir = make_run()
    monkeypatch.setattr(page_module, '_write', lambda *_: 1 / 0)
    with report_at_end(work_dir):
        pass
    assert not (work_dir / 'report.html').exists()

"""The page holds what the run left, says what it lacks, and runs nothing."""

from __future__ import annotations

import base64
import json
import shutil
from xml.etree import ElementTree

import pytest
from PIL import Image

from gn_det.workbench.errors import UserError
from gn_det.workbench.report import (
    check_runs,
    report_at_end,
    run_page,
    write_comparison,
    write_report,
)
from tests.workbench.report.pages import Page

NEED_SCORES = (
    'Classes', 'Precision and recall', 'Thresholds', 'Confusions', 'Images',
)  # fmt: skip


def test_whole_run(whole_report):
    page = Page(whole_report)
    assert not any(page.missing.values())
    assert {name: len(images) for name, images in page.images.items()} == {
        'Average precision': 0, 'Training curves': 3, 'Classes': 1,
        'Precision and recall': 1, 'Thresholds': 0, 'Confusions': 1,
        'Memory and speed': 1, 'Images': 4,
        'Environment': 0, 'Config': 0,
    }  # fmt: skip
    assert 'finished, 2 epochs' in whole_report.read_text()
    row = 'box, last validation (2) 40.0 – – – – –'
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


def change_scores(work_dir, change):
    """Let `change` edit what was kept of the last validation."""
    file = work_dir / 'val.scores.json'
    content = json.loads(file.read_text())
    for kind in content['kinds'].values():
        change(kind)
    file.write_text(json.dumps(content))


ODD_NAMES = [
    '<script>alert("$x$")</script> & $',
    '$_1^$ <b>&',
    'a\0b\x07\x1b[31mc\nd',
    '_hidden',
    'x' * 5000,
]


@pytest.mark.parametrize('name', ODD_NAMES, ids=lambda name: ascii(name[:12]))
@pytest.mark.parametrize('absent', [False, True])
def test_names_of_classes_are_text(make_run, name, absent):
    def rename(kind):
        names = list(kind['class_ap'])
        kind['class_ap'] = {
            name if n == names[0] else n: -1.0 if absent and n == names[0] else 0.5
            for n in names
        }
        for image in (*kind['best'], *kind['worst']):
            for one in (*image['truth'], *image['found']):
                one['name'] = name

    work_dir = make_run('<b>run & \x07co')
    change_scores(work_dir, rename)
    page = Page(write_report(work_dir))
    assert not any(page.missing.values()), page.missing
    assert 'script' not in {tag for tag, _ in page.tags}
    for source in page.images['Classes']:
        svg = base64.b64decode(source.removeprefix('data:image/svg+xml;base64,'))
        ElementTree.fromstring(svg)
    assert len(page.images['Images']) == 4
    text = (work_dir / 'report.html').read_text()
    assert '<h1>&lt;b&gt;run &amp; \\x07co</h1>' in text
    assert text.isprintable() or not set(text) & set(map(chr, range(9)))


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        (None, 'gn-det test'),
        ('{"written_s": 1, "kinds": {"bbox"', 'is damaged'),
        ('[]', 'is damaged'),
        ('[' * 100_000, 'is damaged'),
        ('{"written_s": 1e99, "kinds": {}}', 'is damaged'),
        ('{"written_s": 1, "kinds": {}}', 'gn-det test'),
    ],
)
def test_scores_that_are_not_there(make_run, content, said):
    work_dir = make_run()
    file = work_dir / 'val.scores.json'
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    page = Page(write_report(work_dir))
    for section in NEED_SCORES:
        assert said in ' '.join(page.missing[section])
    assert page.images['Training curves']


def test_masks_may_be_missing(make_run):
    work_dir = make_run()
    file = work_dir / 'val.scores.json'
    content = json.loads(file.read_text())
    del content['kinds']['segm']
    file.write_text(json.dumps(content))
    page = Page(write_report(work_dir))
    assert 'masks' in page.missing['Classes'][0]
    assert len(page.images['Images']) == 4
    assert 'boxes that score' in page.sections['Images']


def test_data_that_moved_away(make_run, shapes, tmp_path):
    gone = tmp_path / 'gone'
    work_dir = make_run(data_root=gone)
    page = Page(write_report(work_dir))
    assert 'image not found' in page.missing['Images'][0]
    assert '--data-root' in page.missing['Images'][0]
    assert str(gone) in page.missing['Images'][0]
    page = Page(write_report(work_dir, str(shapes)))
    assert not any(page.missing.values())


def test_an_image_that_cannot_be_read_costs_no_other(make_run, shapes, tmp_path):
    moved = tmp_path / 'moved'
    shutil.copytree(shapes, moved)
    first, second = sorted((moved / 'val').glob('*.jpg'))[:2]
    first.write_bytes(b'')
    second.unlink()
    page = Page(write_report(make_run(data_root=moved)))
    assert len(page.images['Images']) == 2
    assert sorted(reason.split(':')[0] for reason in page.missing['Images']) == [
        f'cannot paint {path}' for path in (first, second)
    ]


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

    monkeypatch.setattr(run_page.figures, 'losses', broken)
    page = Page(write_report(make_run()))
    assert 'ZeroDivisionError' in page.missing['Training curves'][0]
    assert page.images['Images']


def test_scores_of_another_run_are_not_shown(make_run):
    """What an earlier run left is not this one's, however new its file is."""
    work_dir = make_run()
    change_scores(work_dir, lambda kind: kind['values'].update(mAP=0.123))
    page = Page(write_report(work_dir))
    assert 'has no scores of the last validation' in page.missing['Classes'][0]


def test_newest_of_validation_and_test_is_shown(make_run):
    work_dir = make_run()
    folder = work_dir / 'test' / '20261122_100000'
    folder.mkdir(parents=True)
    scores = {'coco/bbox_mAP': 0.5, 'coco/segm_mAP': 0.5}
    (folder / '20261122_100000.json').write_text(json.dumps(scores))
    content = json.loads((work_dir / 'val.scores.json').read_text())
    for kind in content['kinds'].values():
        kind['values']['mAP'] = 0.5
    content['written_s'] += 60
    (work_dir / 'test/results.scores.json').write_text(json.dumps(content))
    page = Page(write_report(work_dir))
    assert 'From the test, results.scores.json' in page.sections['Classes']
    assert 'box, test 50.0' in page.sections['Average precision']


def test_masks_that_do_not_fit_their_image(make_run):
    def damage(kind):
        for image in (*kind['best'], *kind['worst']):
            for one in image['truth'][:1]:
                one['mask'] = {'size': [64, 64], 'counts': 'zz\u0000'}
            for one in image['found'][:1]:
                one['mask'] = {'size': [9, 9], 'counts': '0'}

    work_dir = make_run()
    change_scores(work_dir, damage)
    page = Page(write_report(work_dir))
    assert len(page.missing['Images']) == 4
    assert all('cannot paint' in reason for reason in page.missing['Images'])


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
    with pytest.raises(UserError, match='is the report of'):
        check_runs([run], run / '..' / run.name / 'report.html')


def test_a_report_at_another_place(make_run, tmp_path):
    work_dir = make_run()
    path = write_report(work_dir, out=tmp_path / 'pages/one.html')
    assert path == tmp_path / 'pages/one.html'
    assert not any(Page(path).missing.values())
    assert not (work_dir / 'report.html').exists()


def test_killed_run(make_run):
    work_dir = make_run(**{'train_cfg.max_epochs': 9})
    scalars = work_dir / '20261121_100000/vis_data/scalars.json'
    lines = scalars.read_text().splitlines()
    scalars.write_text('\n'.join(lines[:5]) + '\n{"loss": 0.')
    path = write_report(work_dir)
    assert 'not finished: 1 of 9 epochs, last logged iteration 4' in path.read_text()


def test_without_its_last_validation_a_run_is_not_finished(make_run):
    work_dir = make_run()
    scalars = work_dir / '20261121_100000/vis_data/scalars.json'
    scalars.write_text('\n'.join(scalars.read_text().splitlines()[:-1]))
    (work_dir / 'last_checkpoint').write_text('/somewhere/epoch_2.pth')
    text = write_report(work_dir).read_text()
    assert 'not finished: 2 epochs trained, without the validation' in text


def test_a_start_that_logged_nothing_tells_nothing(make_run):
    """The settings and the environment are of the run whose numbers are shown."""
    work_dir = make_run()
    shutil.copytree(
        make_run('later', **{'optim_wrapper.optimizer.lr': 0.777}) / '20261121_100000',
        work_dir / '20261122_100000',
    )
    for file in (work_dir / '20261122_100000').rglob('*'):
        if file.suffix == '.log':
            file.write_text(file.read_text().replace('H200', 'B200'))
    scalars = work_dir / '20261122_100000/vis_data/scalars.json'
    logged = scalars.read_text()
    for content in ('', '{"iter": 1}\n', None):
        scalars.unlink() if content is None else scalars.write_text(content)
        page = Page(write_report(work_dir))
        assert '0.777' not in page.sections['Config']
        assert 'NVIDIA H200' in page.sections['Environment']
    scalars.write_text(logged)
    page = Page(write_report(work_dir))
    assert '0.777' in page.sections['Config']
    assert 'NVIDIA B200' in page.sections['Environment']


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
    assert '40.0' in rows
    assert '41.0' in rows
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
    monkeypatch.setattr(run_page, 'write_page', lambda *_: 1 / 0)
    with report_at_end(work_dir):
        pass
    assert not (work_dir / 'report.html').exists()

"""A folder of all sorts of files: what can be read is painted, the rest is named."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from gn_det.workbench.errors import UserError
from gn_det.workbench.inference import demo, run_demo


@pytest.fixture
def folder(tmp_path, shapes):
    """Two good images, one of them grey; five files that are none; a video of three."""
    root = tmp_path / 'in'
    root.mkdir()
    first, second, third = sorted((shapes / 'val').glob('*.jpg'))[:3]
    shutil.copy(first, root / 'a.jpg')
    cv2.imwrite(str(root / 'grey.png'), cv2.imread(str(second), cv2.IMREAD_GRAYSCALE))
    (root / 'cut.jpg').write_bytes(third.read_bytes()[:900])
    (root / 'empty.png').touch()
    (root / 'notes.txt').write_text('not an image\n')
    (root / 'words.jpg').write_text('not an image\n')
    (root / 'broken.mp4').write_bytes(b'\0' * 64)
    (root / '.hidden').write_text('not looked at')
    (root / 'subfolder').mkdir()
    write_video(root / 'film.avi', [first, second, third])
    return root


def write_video(path, images):
    frames = [cv2.imread(str(image)) for image in images]
    height, width = frames[0].shape[:2]
    codec = cv2.VideoWriter_fourcc(*'MJPG')
    writer = cv2.VideoWriter(str(path), codec, 5.0, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()


def test_folder(detector, folder, tmp_path):
    out = tmp_path / 'out'
    done = run_demo(detector, folder, out, score_threshold=0.0, batch_size=2)
    assert {path.name for path in done.skipped} == {
        'cut.jpg', 'empty.png', 'notes.txt', 'words.jpg', 'broken.mp4'
    }  # fmt: skip
    assert sorted(path.name for path in done.painted) == [
        'a.jpg',
        'film.mp4',
        'grey.png',
    ]
    assert {path.name for path in (out / 'painted').iterdir()} == {
        path.name for path in done.painted
    }
    before = cv2.imread(str(folder / 'grey.png')).astype(int)
    after = cv2.imread(str(out / 'painted/grey.png')).astype(int)
    assert after.shape == before.shape
    assert np.abs(after - before).max() > 50

    coco = COCO(done.results)
    names = [image['file_name'] for image in coco.dataset['images']]
    assert sorted(names) == [
        'a.jpg', 'film.avi#000001', 'film.avi#000002', 'film.avi#000003', 'grey.png'
    ]  # fmt: skip
    assert [c['name'] for c in coco.dataset['categories']] == [
        'circle', 'square', 'triangle'
    ]  # fmt: skip
    assert len(coco.anns) == done.objects > 0
    one = next(iter(coco.anns.values()))
    assert coco.annToMask(one).sum() == pytest.approx(one['area'])


def test_painted_video_has_all_frames_at_their_rate(detector, folder, tmp_path):
    done = run_demo(detector, folder / 'film.avi', tmp_path / 'out', batch_size=2)
    capture = cv2.VideoCapture(str(done.painted[0]))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(5.0)
    frames = 0
    while capture.read()[0]:
        frames += 1
    assert frames == 3


def test_results_are_those_of_the_image(detector, folder, tmp_path):
    done = run_demo(detector, folder / 'a.jpg', tmp_path / 'out', score_threshold=0.0)
    image = cv2.imread(str(folder / 'a.jpg'))
    ((_, _, found),) = detector.detect([image], 0.0)
    assert json.loads(done.results.read_text())['annotations'] == found.coco(1)


def test_nothing_readable_writes_nothing(detector, folder, tmp_path):
    done = run_demo(detector, folder / 'notes.txt', tmp_path / 'out')
    assert done.results is None
    assert not (tmp_path / 'out').exists()


def test_no_two_files_are_painted_into_one(detector, shapes, tmp_path):
    root, out = tmp_path / 'in', tmp_path / 'out'
    root.mkdir()
    images = sorted((shapes / 'val').glob('*.jpg'))
    write_video(root / 'clip.avi', images[:1])
    write_video(root / 'clip.mkv', images[:2])
    write_video(root / 'film.avi', images[:1])
    shutil.copy(root / 'film.avi', root / 'film.mp4')
    for name in ('a.png', 'a.jpg', 'b.gif.png', 'c.png'):
        cv2.imwrite(str(root / name), cv2.imread(str(images[0])))
    Image.open(images[0]).save(root / 'b.gif')
    shutil.copy(root / 'c.png', root / 'c')
    done = run_demo(detector, root, out, score_threshold=0.9)
    assert not done.skipped
    painted = sorted(path.name for path in (out / 'painted').iterdir())
    assert painted == [
        'a.jpg', 'a.png', 'b.gif-2.png', 'b.gif.png', 'c-2.png', 'c.png',
        'clip.mkv.mp4', 'clip.mp4', 'film.avi.mp4', 'film.mp4',
    ]  # fmt: skip
    assert sorted(path.name for path in done.painted) == painted


def test_an_image_the_pipeline_fails_on_is_named(detector, folder, tmp_path):
    cv2.imwrite(str(folder / 'b.png'), np.zeros((2, 3000, 3), np.uint8))
    done = run_demo(detector, folder, tmp_path / 'out', batch_size=8)
    assert folder / 'b.png' in done.skipped
    assert {'a.jpg', 'grey.png'} <= {path.name for path in done.painted}
    names = {i['file_name'] for i in json.loads(done.results.read_text())['images']}
    assert {'a.jpg', 'grey.png'} <= names
    assert 'b.png' not in names


def test_a_video_the_pipeline_fails_on_is_named(
    detector, folder, tmp_path, monkeypatch
):
    def broken(_):
        raise ValueError('no such size')

    monkeypatch.setattr(detector, '_pipeline', broken)
    done = run_demo(detector, folder / 'film.avi', tmp_path / 'out')
    assert done.skipped == [folder / 'film.avi']
    assert done.painted == []
    assert done.results is None


def test_frames_the_pipeline_fails_on_are_counted(
    detector, folder, tmp_path, monkeypatch
):
    pipeline = detector._pipeline
    lines = []

    def broken(data):
        if data['img_id'] == 1:
            raise ValueError('no such size')
        return pipeline(data)

    monkeypatch.setattr(detector, '_pipeline', broken)
    monkeypatch.setattr(
        'gn_det.workbench.inference.demo.print_log',
        lambda line, **_: lines.append(line),
    )
    done = run_demo(detector, folder / 'film.avi', tmp_path / 'out')
    names = [i['file_name'] for i in json.loads(done.results.read_text())['images']]
    assert names == ['film.avi#000001', 'film.avi#000003']
    assert done.skipped == [folder / 'film.avi']
    assert '1 of its frames left out: the test pipeline fails on it' in lines[-1]


@pytest.mark.parametrize('error', [KeyboardInterrupt, RuntimeError])
def test_what_was_found_is_written_when_it_is_cut_short(
    detector, folder, tmp_path, monkeypatch, error
):
    paint = detector.paint
    painted = []

    def interrupted(image, found):
        if painted:
            raise error
        painted.append(found)
        return paint(image, found)

    monkeypatch.setattr(detector, 'paint', interrupted)
    with pytest.raises(error):
        run_demo(detector, folder, tmp_path / 'out')
    results = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert results['images'][0]['file_name'] == 'a.jpg'


def test_images_of_other_kinds_are_not_called_damaged(detector, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(demo, 'print_log', lambda text, **_: said.append(text))
    root = tmp_path / 'in'
    root.mkdir()
    colours = np.random.default_rng(0).random((40, 40, 3), np.float32)
    cv2.imwrite(str(root / 'colours.tiff'), colours)
    Image.fromarray(colours[..., 0]).save(root / 'depth.tiff')
    assert len(run_demo(detector, root, tmp_path / 'out').skipped) == 2
    assert 'colours.tiff: Pillow does not know its kind' in said[0]
    assert 'depth.tiff: OpenCV does not read TIFF of mode F; save it with' in said[1]


def test_mistakes(detector, folder, tmp_path):
    with pytest.raises(UserError, match='no image, folder or video at'):
        run_demo(detector, tmp_path / 'nowhere', tmp_path / 'out')
    with pytest.raises(UserError, match='no files in'):
        run_demo(detector, folder / 'subfolder', tmp_path / 'out')
    moved = tmp_path / 'out/painted'
    shutil.copytree(folder, moved)
    with pytest.raises(UserError, match='would replace it'):
        run_demo(detector, moved, tmp_path / 'out')
    theirs = folder / 'predictions.json'
    theirs.write_text('precious')
    for source in (folder, folder / 'a.jpg'):
        with pytest.raises(UserError, match='would replace it'):
            run_demo(detector, source, folder)
    assert theirs.read_text() == 'precious'

"""`gn-det browse`: the page shows what the model is fed, in its place and colours."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from gn_det.workbench.inputs.config import load_config
from gn_det.workbench.inputs.data import check_data
from gn_det.workbench.inputs.images import read_image
from gn_det.workbench.inspection.feed import fed_batches
from tests.running import CONFIG, REPOSITORY, assert_success, call, user_error


def config(shapes, **options):
    cfg = load_config(str(REPOSITORY / CONFIG), dict(data_root=str(shapes), **options))
    check_data(cfg, ['train', 'val'])
    return cfg


def bitmap(one):
    return coco_mask.decode(vars(one.mask)).astype(bool)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_objects_lie_where_the_pixels_are(shapes, split):
    """64 × 64 images, fed at 128 × 128 with the truth in the same scale."""
    batches = list(fed_batches(config(shapes), split, 4))
    images = [image for batch in batches for image in batch]
    assert len(images) == 4
    for image in images:
        own = read_image(shapes / split / image.name)[..., ::-1]
        fed = image.pixels[::2, ::2]
        fed = fed[:, ::-1] if image.flipped else fed
        assert image.size == (128, 128)
        # Bilinear: alike, and not at all with red and blue exchanged.
        assert np.abs(fed.astype(int) - own).mean() < 6
        for one in image.objects:
            rows, columns = np.nonzero(bitmap(one))
            x, y, width, height = one.box
            assert [columns.min(), rows.min()] == pytest.approx([x, y], abs=3)
            assert [columns.max() + 1, rows.max() + 1] == pytest.approx(
                [x + width, y + height], abs=3
            )
    names = {one.name for image in images for one in image.objects}
    assert names <= {'circle', 'square', 'triangle'}
    assert any(one.crowd for image in images for one in image.objects) or split == 'val'


def test_images_of_a_batch_are_padded_and_the_draws_are_those_of_the_seed(shapes):
    options = {'model.data_preprocessor.pad_size_divisor': 96}
    first, again, other = (
        next(fed_batches(config(shapes, **options, **more), 'train', 4))
        for more in ({}, {}, {'randomness.seed': 1})
    )
    assert {image.pixels.shape for image in first} == {(192, 192, 3)}
    assert all(bitmap(one).shape == (192, 192) for i in first for one in i.objects)
    drawn = [[(i.name, i.flipped) for i in batch] for batch in (first, again, other)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_page(shapes, tmp_path):
    page = tmp_path / 'sheet.html'
    options = ('--cfg-options', f'data_root={shapes}')
    done = call('browse', CONFIG, '--number', 5, '--out', page, *options)
    assert_success(done)
    assert done.stdout == f'{page}: 5 images\n'
    text = page.read_text()
    assert text.count('data:image/jpeg') == 5
    assert 'Batch 2' in text
    assert 'padded' not in text
    assert '<th scope="row">triangle</th>' in text
    assert '4. RandomFlip' in text


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['--number', 0], '--number: expected 1 or more, got 0'),
        (['--out', '.'], '--out . is a folder; name a file'),
        (['--cfg-options', 'data_root=nowhere'], 'dataset folder not found'),
        (['--split', 'test', '--cfg-options', 'test_dataloader=None',
          'test_evaluator=None', 'test_cfg=None'], 'has no test_dataloader'),
    ],
)  # fmt: skip
def test_mistakes(words, said):
    assert said in user_error(call('browse', CONFIG, *words))

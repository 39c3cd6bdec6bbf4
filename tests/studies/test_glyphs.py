"""The generated classification set."""

from __future__ import annotations

import torch

from studies.glyphs import CLASSES, SIDE, glyph_set


def test_the_same_arguments_give_the_same_images():
    images, labels = glyph_set('train', 20).tensors
    again, _ = glyph_set('train', 20).tensors
    assert images.shape == (20, 3, SIDE, SIDE)
    assert images.dtype == torch.float32
    assert torch.equal(images, again)
    assert labels.tolist() == [*range(10), *range(10)]


def test_an_image_does_not_depend_on_how_many_there_are():
    few, many = glyph_set('val', 3).tensors[0], glyph_set('val', 12).tensors[0]
    assert torch.equal(few, many[:3])


def test_splits_and_seeds_share_no_image():
    sets = [glyph_set('train', 10), glyph_set('val', 10), glyph_set('val', 10, seed=1)]
    images = torch.cat([drawn.tensors[0] for drawn in sets]).flatten(1)
    distance = torch.cdist(images, images)
    assert distance[~torch.eye(len(images), dtype=torch.bool)].min() > 1


def test_images_differ_in_contrast():
    images = glyph_set('train', 200).tensors[0]
    assert abs(images.mean()) < 0.6
    assert 0.7 < images.std() < 1.5
    contrast = images.flatten(1).std(dim=1)
    assert contrast.quantile(0.9) > 2 * contrast.quantile(0.1)


def test_every_class_has_an_outline_of_its_own():
    # Averaged over many, what is left is the outline; noise and colours cancel.
    images, labels = glyph_set('train', 600).tensors
    grey = images.mean(dim=1)
    grey = grey - grey.mean(dim=(1, 2), keepdim=True)
    means = torch.stack([grey[labels == i].mean(0).flatten() for i in range(10)])
    likeness = torch.corrcoef(means) - torch.eye(len(CLASSES))
    assert likeness.max() < 0.995

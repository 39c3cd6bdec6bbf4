"""A generated classification set: one shape per image, ten kinds.

Place, size, tilt, colour and noise are random, and a stroke crosses the image. The
images differ in brightness and contrast as photographs do: that is what makes the
statistics of a small batch uncertain. The same arguments always give the same arrays,
and image i does not depend on how many there are.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch.utils.data import TensorDataset

SPLITS = ('train', 'val')
SIDE = 32
# Drawn larger and averaged down: the edges are smooth wherever a shape lies.
_SCALE = 4
_MAX_TILT = np.radians(15)
_NOISE = 0.08
_CONTRASTS = (0.25, 1.25)
_MAX_BRIGHTNESS = 0.35


def _polygon(corners: int) -> np.ndarray:
    """Corners on the unit circle, the first on top."""
    angles = np.arange(corners) * (2 * np.pi / corners) - np.pi / 2
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star(tips: int, inner: float) -> np.ndarray:
    points = _polygon(2 * tips)
    points[1::2] *= inner
    return points


_BAR = np.array([(-1, -0.3), (1, -0.3), (1, 0.3), (-1, 0.3)])
_OUTLINES = {
    'triangle': _polygon(3),
    'triangle, upside down': -_polygon(3),
    'square': _polygon(4),
    'hexagon': _polygon(6),
    'circle': _polygon(32),
    'three-pointed star': _star(3, 0.35),
    'four-pointed star': _star(4, 0.4),
    'five-pointed star': _star(5, 0.45),
    'lying bar': _BAR,
    'standing bar': _BAR[:, ::-1],
}
CLASSES = tuple(_OUTLINES)


def glyph_set(split: str, count: int, seed: int = 0) -> TensorDataset:
    """Draw `count` images, the classes in turn.

    Args:
        split: `'train'` or `'val'`; they share no image.
        count: how many images.
        seed: of all random choices.

    Returns:
        Pairs of an image, fp32 (3, 32, 32) roughly between -2 and 2, and the
        index of its class, int64.
    """
    images = np.empty((count, SIDE, SIDE, 3), np.float32)
    labels = np.arange(count) % len(CLASSES)
    for index, label in enumerate(labels):
        rng = np.random.default_rng((seed, SPLITS.index(split), index))
        images[index] = _draw(rng, _OUTLINES[CLASSES[label]])
    images = torch.from_numpy((images - 0.5) / 0.25).permute(0, 3, 1, 2).contiguous()
    return TensorDataset(images, torch.from_numpy(labels))


def _draw(rng: np.random.Generator, outline: np.ndarray) -> np.ndarray:
    """One image (32, 32, 3): a shape on a darker ground, values about 0.5."""
    size = SIDE * _SCALE
    dark, bright = sorted(rng.uniform(0, 1, 2))
    ground = 0.6 * dark + rng.uniform(-0.2, 0.2, 3)
    color = 0.6 + 0.4 * bright + rng.uniform(-0.2, 0.2, 3)
    canvas = np.empty((size, size, 3), np.float32)
    canvas[:] = ground
    radius = rng.uniform(0.26, 0.42) * size
    center = rng.uniform(0.4, 0.6, 2) * size
    tilt = rng.uniform(-_MAX_TILT, _MAX_TILT)
    turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    points = (center + radius * outline @ turn).round().astype(np.int32)
    cv2.fillPoly(canvas, [points], color.tolist())
    start, end = rng.integers(0, size, (2, 2)).tolist()
    cv2.line(canvas, start, end, rng.uniform(0, 1, 3).tolist(), _SCALE)
    image = cv2.resize(canvas, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    image += rng.normal(0, _NOISE, image.shape)
    contrast = np.exp(rng.uniform(*np.log(_CONTRASTS)))
    brightness = rng.uniform(-_MAX_BRIGHTNESS, _MAX_BRIGHTNESS)
    return (image - 0.5) * contrast + 0.5 + brightness

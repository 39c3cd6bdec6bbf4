"""How many kernels a new user waits for: in the first step, and in a whole epoch."""

from collections.abc import Iterable

import pytest
import torch

from benchmarks.cases import DTYPES, LAYOUTS
from benchmarks.shapes import SHAPES, Shape
from gn_det.ops import group_norm
from gn_det.ops.precompile import Kernel, kernels_of

FIRST_STEP = 40
EPOCH = 120
SMS = 132
# Sizes that images of any form get, padded to a batch: the short side where the long
# one is at its limit, and the resolutions of ms-3x.
LONG = 1333
SHORT = range(640, 801, 32)


def padded_sizes(shorts: Iterable[int]) -> set[tuple[int, int]]:
    """Short and long side of batches of images up to three times as long as wide.

    The kernels know the product of the sides only.
    """
    found = set()
    for short in shorts:
        for percent in range(100, 301, 2):
            long = short * percent / 100
            scale = min(1, LONG / long)
            sides = [int(side * scale + 0.5) for side in (short, long)]
            found.add(tuple(-(-side // 32) * 32 for side in sides))
    return found


def call(shape: Shape, height: int, width: int, dtype, layout) -> None:
    """One norm of the detector on images of a size, forward and backward if trained."""
    if shape.name.endswith('-head'):
        height, width = shape.H, shape.W
    else:
        stride = round(800 / shape.H)
        height, width = -(-height // stride), -(-width // stride)
    size = (shape.N, shape.C, height, width)
    x, residual = (
        torch.empty(size, dtype=dtype, device='meta', memory_format=layout)
        for _ in range(2)
    )
    weight, bias = torch.empty(2, shape.C, device='meta').unbind()
    leaves = [x, weight, bias]
    if shape.kind != 'residual_relu':
        residual = None
    else:
        leaves.append(residual)
    for leaf in leaves:
        leaf.requires_grad_(not shape.frozen)
    activation = None if shape.kind == 'plain' else 'relu'
    y = group_norm(x, shape.G, weight, bias, activation=activation, residual=residual)
    if not shape.frozen:
        torch.autograd.grad(y, leaves, y.detach())


def needed(sizes: Iterable[tuple[int, int]], dtype, layout) -> set[Kernel]:
    with kernels_of(SMS) as found:
        for height, width in sizes:
            for shape in SHAPES:
                call(shape, height, width, DTYPES[dtype], LAYOUTS[layout])
    return found


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('dtype', ['bf16', 'fp32'])
def test_kernels_to_compile(dtype, layout):
    """Mask R-CNN R-50, all of GN, batch of 2: gn-all_2x's first step, ms-3x's epoch."""
    first = needed([(800, 1344)], dtype, layout)
    assert 20 <= len(first) <= FIRST_STEP
    assert len(first | needed(padded_sizes(SHORT), dtype, layout)) <= EPOCH

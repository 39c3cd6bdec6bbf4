"""What every test shares: where kernels run, and which tests a machine can run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

# Triton reads it when a kernel is decorated, so it is set before anything is imported.
if not torch.cuda.is_available():
    os.environ.setdefault('TRITON_INTERPRET', '1')

REPOSITORY = Path(__file__).resolve().parent.parent
COCO_SAMPLE = os.environ.get('GN_DET_COCO_SAMPLE')


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this machine cannot run."""
    no_gpu = pytest.mark.skip(reason='needs a CUDA device')
    no_coco = pytest.mark.skip(
        reason='needs a sample of COCO, named by GN_DET_COCO_SAMPLE'
    )
    for item in items:
        if 'gpu' in item.keywords and not torch.cuda.is_available():
            item.add_marker(no_gpu)
        if 'coco' in item.keywords and not COCO_SAMPLE:
            item.add_marker(no_coco)


@pytest.fixture(scope='session')
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope='session')
def coco_sample() -> Path:
    """78 train and 47 val images of COCO 2017 in COCO's own layout."""
    return Path(COCO_SAMPLE)


@pytest.fixture(scope='session')
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small generated set: 12 train and 4 val images of 64 × 64."""
    from gn_det.workbench.datasets import ShapesSpec, generate_shapes

    root = tmp_path_factory.mktemp('data') / 'shapes'
    spec = ShapesSpec(num_train=12, num_val=4, height=64, width=64, crowd_fraction=0.3)
    generate_shapes(root, spec)
    return root

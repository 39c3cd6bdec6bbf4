"""What `show` says of a model."""

from __future__ import annotations

import pytest

from gn_det.workbench.zoo import find
from gn_det.workbench.zoo.listing import describe


def test_the_measured_model_has_the_commands_that_measured_it():
    name = 'mask-rcnn_r18_fpn_gn-all_shapes'
    text = describe(find(name))
    assert [
        line.strip() for line in text.splitlines() if line.startswith('  gn-det')
    ] == [
        'gn-det shapes data/shapes',
        f'gn-det test {name} work_dirs/{name}/epoch_8.pth',
        f'gn-det train {name}',
    ]
    assert 'rate 0.001 at 4 images' in text
    assert 'torchrun' not in text


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        (
            'mask-rcnn_r50_fpn_gn-all-detectron_2x_coco',
            ', biases at rate 0.04 with weight decay 0\n',
        ),
        ('mask-rcnn_r50_fpn_gn-all-detectron_2x_coco', 'no hash published'),
        ('mask-rcnn_r50_fpn_gn-all_2x_coco', '800 × 1333 in training, 2 per process'),
        (
            'mask-rcnn_r50-scratch_fpn_gn-all_8xb8-ms-9x_coco',
            '640 to 800 × 1333 (6 sizes) in training, 8 per process; 800 × 1333 in te',
        ),
        ('mask-rcnn_r18_fpn_gn-all_coco-overfit', '192 × 256 in training, 4 per proc'),
    ],
)
def test_settings(name, words):
    assert words in describe(find(name))

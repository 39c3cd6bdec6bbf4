"""detectron2's GN Mask R-CNN: into mmdet's names and back, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gn_det.workbench.errors import UserError
from gn_det.workbench.loading.files import load_file
from gn_det.workbench.zoo.convert import convert_file, detectron2
from gn_det.workbench.zoo.convert.detectron2 import detectron2_name
from tests.workbench.zoo.convert_cases import (
    CONFIGS,
    DETECTOR_LIST,
    build,
    detectron2_state,
    mmdet_key,
    table,
    write_pickle,
)

R50 = 'gn/mask-rcnn_r50_fpn_gn-all_ms-3x_coco.py'
STD_9X = np.float32([57.375, 57.12, 58.395]).reshape(3, 1, 1)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp('detectron2') / 'model_final.pkl'
    content = {'model': detectron2_state(), '__author__': 'Detectron2 Model Zoo'}
    return write_pickle(path, content)


@pytest.fixture
def empty():
    return {
        name: torch.empty(value.shape, device='meta')
        if value.size > 3
        else torch.from_numpy(value)
        for name, value in detectron2_state().items()
    }


def test_names_are_the_published_ones():
    """The list pairs blobs with names in detectron2, short of prefixes."""
    blobs = table(DETECTOR_LIST, 'detectron_blob', 'shape')
    names = table(DETECTOR_LIST, 'detectron2_name', 'detectron2_shape')
    assert len(blobs) == len(names) == 223
    for blob, name in zip(blobs, names, strict=True):
        assert detectron2_name(mmdet_key(blob)).endswith(name), blob


def test_there_and_back_is_bit_exact(source, tmp_path):
    there, back = tmp_path / 'mmdet.pth', tmp_path / 'detectron2.pth'
    report = convert_file(source, there, 'detectron2')
    assert report.skipped == {
        'pixel statistics, which are in the meta': 2,
        'anchors, which mmdet computes': 5,
    }
    given = detectron2_state()
    state = load_file(there)['state_dict']
    model = build(R50)
    model.load_state_dict(state, strict=True)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), given[detectron2_name(name)], name)

    report = convert_file(there, back, 'mmdet', 'detectron2')
    assert report.num_tensors == 223
    written = load_file(back)
    assert set(written) == {'model', '__author__'}
    dropped = {n for n in given if n.startswith('pixel_') or 'cell_anchors' in n}
    assert set(written['model']) == set(given) - dropped
    for name, value in written['model'].items():
        assert value.numpy().tobytes() == given[name].tobytes(), name


def test_the_pixel_statistics_choose_the_config(empty):
    result = detectron2.convert({'model': empty})
    assert result.config == f'configs/{R50}'
    assert result.options == {}
    empty['pixel_std'] = torch.from_numpy(STD_9X)
    result = detectron2.convert({'model': empty})
    assert result.config == (
        'configs/scratch/mask-rcnn_r50-scratch_fpn_gn-all_8xb8-ms-9x_coco.py'
    )
    assert (CONFIGS.parent / result.config).is_file()
    assert result.preprocessing.std == (57.375, 57.12, 58.395)
    assert result.options == {}


def test_other_statistics_are_given_as_options(empty):
    empty['pixel_mean'] = torch.tensor([1.0, 2.0, 3.0])
    result = detectron2.convert({'model': empty})
    assert result.options == {'model.data_preprocessor.mean': [1.0, 2.0, 3.0]}


def test_missing_statistics_are_mentioned(empty):
    del empty['pixel_mean'], empty['pixel_std']
    result = detectron2.convert(empty)
    assert any('no pixel_std' in note for note in result.notes)
    assert result.skipped == {'anchors, which mmdet computes': 5}


def test_leftovers_and_missing_weights_are_named(empty):
    empty['roi_heads.keypoint_head.score_lowres.weight'] = torch.empty(1)
    del empty['backbone.fpn_lateral3.norm.bias']
    with pytest.raises(UserError) as error:
        detectron2.convert({'model': empty})
    assert '1 missing (backbone.fpn_lateral3.norm.bias)' in str(error.value)
    assert '1 left over (roi_heads.keypoint_head.score_lowres.weight)' in str(
        error.value
    )


def test_a_model_without_group_norm_is_refused(empty):
    plain = {k: v for k, v in empty.items() if not k.startswith('backbone.fpn_')}
    with pytest.raises(UserError, match='missing'):
        detectron2.convert({'model': plain})


def test_only_a_detector_goes_to_detectron2(tmp_path):
    torch.save({'conv1.weight': torch.ones(1)}, tmp_path / 'some.pth')
    with pytest.raises(UserError, match='no detector'):
        convert_file(tmp_path / 'some.pth', tmp_path / 'd2.pth', 'mmdet', 'detectron2')
    assert not (tmp_path / 'd2.pth').exists()

"""Older mmdet files: the background class moves, names and settings follow."""

from __future__ import annotations

import pytest
import torch

from gn_det.workbench.errors import UserError
from gn_det.workbench.zoo.convert import mmdet
from gn_det.workbench.zoo.convert.layout import Detector, ResNet
from tests.workbench.zoo.convert_cases import CONFIGS

R50 = ResNet((3, 4, 6, 3))
MASK_RCNN = Detector(R50, 80)
CONTRIB = """work/config.py
model = dict(type='MaskRCNN')
img_norm_cfg = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
"""


def mmdet1_file(detector: Detector = MASK_RCNN, **meta) -> dict:
    """Background first, 81 of everything, no `roi_head.`; heads with real values."""
    state = {}
    for name, shape in detector.shapes().items():
        layer = name.split('.')[-2]
        rows = {'fc_cls': 0, 'fc_reg': 4, 'conv_logits': 1}.get(layer)
        name = name.removeprefix('roi_head.')
        if rows is None:
            state[name] = torch.empty(shape, device='meta')
        else:
            state[name] = torch.rand(shape[0] + rows, *shape[1:])
    return {'state_dict': state, 'meta': meta}


def test_mmdet1_rows_move():
    content = mmdet1_file()
    old = content['state_dict']
    result = mmdet.convert_mmdet1(content)
    new = result.state_dict
    assert set(new) == set(MASK_RCNN.shapes())
    box, mask = 'roi_head.bbox_head', 'roi_head.mask_head'
    for kind in ('weight', 'bias'):
        scores = old[f'bbox_head.fc_cls.{kind}']
        assert torch.equal(new[f'{box}.fc_cls.{kind}'][80], scores[0])
        assert torch.equal(new[f'{box}.fc_cls.{kind}'][:80], scores[1:])
        deltas = old[f'bbox_head.fc_reg.{kind}']
        assert torch.equal(new[f'{box}.fc_reg.{kind}'], deltas[4:])
        logits = old[f'mask_head.conv_logits.{kind}']
        assert torch.equal(new[f'{mask}.conv_logits.{kind}'], logits[1:])


def test_mmdet1_needs_its_boxes_and_pixels():
    result = mmdet.convert_mmdet1(mmdet1_file())
    options = result.options
    assert options['model.data_preprocessor.mean'] == [102.9801, 115.9465, 122.7717]
    assert options['model.rpn_head.bbox_coder.type'] == 'LegacyDeltaXYWHBBoxCoder'
    assert options['model.roi_head.mask_roi_extractor.roi_layer.sampling_ratio'] == 2
    assert any('says neither how images' in note for note in result.notes)


def test_the_options_of_mmdet1_fit_the_config():
    from mmengine.config import Config

    from gn_det.workbench.inputs.config import load_config

    result = mmdet.convert_mmdet1(mmdet1_file())
    cfg = load_config(str(CONFIGS.parent / result.config), result.options)
    assert isinstance(cfg, Config)
    assert cfg.model.rpn_head.anchor_generator.type == 'LegacyAnchorGenerator'

    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules()
    cfg.model.backbone.init_cfg = None
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert type(model.rpn_head.bbox_coder).__name__ == 'LegacyDeltaXYWHBBoxCoder'
    layer = model.roi_head.mask_roi_extractor.roi_layers[0]
    assert (layer.sampling_ratio, layer.aligned) == (2, False)


def test_preprocessing_is_read_from_the_config_in_the_file():
    result = mmdet.convert_mmdet1(mmdet1_file(config=CONTRIB, mmdet_version='1.0.0'))
    assert result.preprocessing.bgr_to_rgb
    assert result.preprocessing.std == (58.395, 57.12, 57.375)
    assert result.config == 'configs/gn/mask-rcnn_r50-contrib_fpn_gn-all_2x_coco.py'
    assert 'model.data_preprocessor.mean' not in result.options
    assert result.notes == []


def test_a_faster_rcnn_has_no_masks():
    result = mmdet.convert_mmdet1(mmdet1_file(Detector(R50, 80, with_mask=False)))
    assert len(result.state_dict) == 207
    assert result.config == 'configs/gn/faster-rcnn_r50_fpn_gn-all_2x_coco.py'
    assert not any('mask' in key for key in result.options)


def mmdet2_file(detector: Detector = MASK_RCNN, **meta) -> dict:
    state = {
        name: torch.empty(shape, device='meta')
        for name, shape in detector.shapes().items()
    }
    return {'state_dict': state, 'meta': meta, 'optimizer': {}}


def test_mmdet2_names_are_ours_and_its_classes_move():
    content = mmdet2_file(CLASSES=['cat', 'dog'], PALETTE=[(1, 2, 3), (4, 5, 6)])
    result = mmdet.convert_mmdet2(content)
    assert result.state_dict.keys() == content['state_dict'].keys()
    assert result.meta['dataset_meta'] == dict(
        classes=('cat', 'dog'), palette=[(1, 2, 3), (4, 5, 6)]
    )
    assert result.preprocessing.mean == (103.53, 116.28, 123.675)
    assert result.options == {}


def test_resnext_and_its_widths():
    detector = Detector(ResNet((3, 4, 23, 3), width=128, groups=32), 80)
    result = mmdet.convert_mmdet2(mmdet2_file(detector))
    assert result.model == detector
    assert result.config is None


X101 = ResNet((3, 4, 23, 3), width=128, groups=32)
STANDARDISED = CONTRIB + "conv_cfg = dict(type='ConvWS')\n"


@pytest.mark.parametrize(
    ('detector', 'config', 'name'),
    [
        (MASK_RCNN, CONTRIB, 'gn/mask-rcnn_r50-contrib_fpn_gn-all_2x'),
        (MASK_RCNN, STANDARDISED, 'gn+ws/mask-rcnn_r50_fpn_gn-ws-all_2x'),
        (
            Detector(X101, 80),
            STANDARDISED,
            'gn+ws/mask-rcnn_x101-32x4d_fpn_gn-ws-all_2x',
        ),
        (
            Detector(R50, 80, with_mask=False),
            STANDARDISED,
            'gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x',
        ),
        (
            Detector(R50, 80, with_mask=False),
            CONTRIB,
            'scratch/faster-rcnn_r50-scratch_fpn_gn-all_6x',
        ),
    ],
)
def test_the_config_that_goes_with_a_file(detector, config, name):
    result = mmdet.convert_mmdet2(mmdet2_file(detector, config=config))
    assert result.config == f'configs/{name}_coco.py'
    assert (CONFIGS.parent / result.config).is_file()
    assert result.options == {}


@pytest.mark.parametrize(
    ('convert', 'content', 'advice'),
    [
        (mmdet.convert_mmdet1, mmdet2_file(), '--from mmdet2'),
        (mmdet.convert_mmdet2, mmdet1_file(), '--from mmdet1'),
    ],
)
def test_the_other_version_is_told(convert, content, advice):
    with pytest.raises(UserError, match=advice):
        convert(content)


def test_mmdet3_stays_as_it_is():
    state = {'anything.weight': torch.rand(3)}
    result = mmdet.convert_mmdet3({'state_dict': state, 'meta': {'epoch': 3}})
    assert torch.equal(result.state_dict['anything.weight'], state['anything.weight'])
    assert result.meta == {'epoch': 3}

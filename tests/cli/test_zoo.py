"""`gn-det zoo list`, `show` and `page`."""

from __future__ import annotations

from tests.running import REPOSITORY, assert_success, call, user_error

R50 = 'mask-rcnn_r50_fpn_gn-all_2x_coco'
MS_3X = 'mask-rcnn_r50_fpn_gn-all_ms-3x_coco'


def test_list_aligns_figures_under_a_head():
    done = call('zoo', 'list', 'configs/gn/')
    assert_success(done)
    head, *rows = done.stdout.splitlines()
    assert head.split()[:2] == ['model', 'schedule']
    assert len(rows) == 11
    (line,) = [row for row in rows if row.startswith(f'{R50} ')]
    assert line.split() == [R50, '2x', '40.2', '36.4', 'mmdetection', 'mmdet2']
    assert line.index('40.2') == head.index('box AP')


def test_list_of_a_pattern_that_matches_nothing():
    line = user_error(call('zoo', 'list', 'resnet9000'))
    assert line == "error: no model of the zoo matches 'resnet9000'"


def test_show_has_settings_figures_weights_and_commands():
    done = call('zoo', 'show', MS_3X)
    assert_success(done)
    text = done.stdout
    assert text.startswith(f'{MS_3X}\n'), 'stdout has what the host libraries say'
    name = f'checkpoints/{MS_3X}.pth'
    for words in (
        'FusedMaskRCNN, ResNet-50, stem and stage 1 frozen',
        'neck FusedGN/32',
        'open-mmlab://detectron/resnet50_gn',
        'BGR, mean [103.53, 116.28, 123.675], std [1.0, 1.0, 1.0]',
        '640 to 800 × 1333 (6 sizes) in training, 2 per process; 800 × 1333 in testing',
        'rate 0.02 at 16 images, weight decay 0.0001 (0 on norms)\n',
        '270000 iterations, the rate falls at 210000 and 250000',
        'box 42.6, mask 38.6, published by detectron2',
        'format detectron2, md5 dc5d9e',
        'CC BY-SA 3.0',
        f'gn-det zoo download {MS_3X} --dest checkpoints',
        f'gn-det convert checkpoints/model_final_dc5d9e.pkl {name} --from detectron2',
        f'gn-det test {MS_3X} {name}',
        f'torchrun --nproc-per-node 8 -m gn_det train {MS_3X} --launcher pytorch',
    ):
        assert words in text, words


def test_show_of_a_model_that_only_training_gives():
    name = 'mask-rcnn_r50-scratch_fpn_gn-c8-all_3x_coco'
    done = call('zoo', 'show', name)
    assert_success(done)
    assert 'box head FusedGN with 8 channels per group' in done.stdout
    assert 'none for this config, published or measured' in done.stdout
    assert 'none published' in done.stdout
    assert f'work_dirs/{name}/epoch_36.pth' in done.stdout
    assert 'download' not in done.stdout


def test_show_of_an_unknown_name_names_the_close_ones():
    line = user_error(call('zoo', 'show', 'mask-rcnn_r50_fpn_gn_2x_coco'))
    assert line.startswith('error: no model mask-rcnn_r50_fpn_gn_2x_coco in the zoo')
    assert R50 in line


def test_page_is_the_one_that_is_there():
    done = call('zoo', 'page')
    assert_success(done)
    assert done.stdout == (REPOSITORY / 'model_zoo.md').read_text()

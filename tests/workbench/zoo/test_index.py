"""The index of the zoo: what the metafiles say, and how a wrong one is answered."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from gn_det.workbench.errors import UserError
from gn_det.workbench.zoo import find, load_index
from gn_det.workbench.zoo.index import matching
from gn_det.workbench.zoo.metafile import Elsewhere
from tests.running import REPOSITORY

R50 = 'mask-rcnn_r50_fpn_gn-all_2x_coco'
BOX = dict(Task='Object Detection', Dataset='COCO', Metrics={'box AP': 40.2})
SPEED = 'inference time (ms/im)'
V100 = dict(value=90.91, hardware='V100')
NAMES = [model.name for model in load_index()]


def box_ap(value: float | None) -> dict:
    return dict(BOX, Metrics={'box AP': value})


@pytest.fixture
def family(tmp_path: Path, repository: Path) -> Path:
    """A copy of one family, for a test to spoil."""
    (tmp_path / 'configs').mkdir()
    shutil.copytree(repository / 'configs' / 'gn', tmp_path / 'configs' / 'gn')
    index = dict(Import=['configs/gn/metafile.yml'])
    (tmp_path / 'model-index.yml').write_text(yaml.safe_dump(index))
    return tmp_path


def spoil(root: Path, change) -> str:
    """Change the metafile's first model (or all of it), and return the complaint."""
    path = root / 'configs' / 'gn' / 'metafile.yml'
    metafile = yaml.safe_load(path.read_text(encoding='utf-8'))
    change(metafile['Models'][0], metafile)
    path.write_text(yaml.safe_dump(metafile, sort_keys=False))
    with pytest.raises(UserError) as caught:
        load_index(root)
    message = str(caught.value)
    assert '\n' not in message
    return message


def test_every_leaf_config_is_one_model_of_its_own_name(repository):
    configs = repository / 'configs'
    leaves = sorted(
        path.relative_to(repository).as_posix()
        for path in configs.rglob('*.py')
        if '_base_' not in path.parts
    )
    models = load_index()
    assert sorted(model.config for model in models) == leaves
    assert [Path(model.config).stem for model in models] == NAMES
    assert len(set(NAMES)) == len(NAMES)


def test_a_model_has_what_its_metafile_says():
    model = find(R50)
    assert model.config == f'configs/gn/{R50}.py'
    assert model.config_path.is_file()
    assert model.collection.folder == 'configs/gn'
    assert (model.status, model.schedule, model.epochs) == ('published', '2x', 24)
    assert (model.box_ap, model.mask_ap, model.memory_gb) == (40.2, 36.4, 7.1)
    assert model.inference_ms == 90.91
    assert model.elsewhere[0] == Elsewhere(by='Detectron', box_ap=40.3, mask_ap=35.7)
    assert model.weights.url.endswith('_20200206-8eee02a6.pth')
    assert (model.weights.format, model.weights.sha256) == ('mmdet2', '8eee02a6')
    assert not model.weights.needs_conversion
    assert model.log.endswith('_20200206_050355.log.json')


def test_weights_have_a_digest_a_licence_and_say_who_publishes_them():
    with_weights = [model for model in load_index() if model.weights]
    assert len(with_weights) >= 23
    for model in with_weights:
        weights = model.weights
        assert weights.url.startswith('https://'), model.name
        assert weights.license, model.name
        assert weights.sha256 or weights.md5 or weights.format == 'detectron', (
            model.name
        )
        assert model.status == 'published', model.name


def test_openmmlabs_tools_find_the_key_they_index(repository):
    """They read `Weights` of every model; null tells them that there are none."""
    for metafile in sorted((repository / 'configs').glob('*/metafile.yml')):
        for model in yaml.safe_load(metafile.read_text(encoding='utf-8'))['Models']:
            assert 'Weights' in model, f'{metafile}: {model["Name"]}'


def test_only_the_quickstart_is_measured():
    measured = [model.name for model in load_index() if model.status == 'measured']
    assert measured == ['mask-rcnn_r18_fpn_gn-all_shapes']


@pytest.mark.parametrize(
    'name',
    [
        R50,
        f'{R50}.py',
        f'gn/{R50}',
        f'gn/{R50}.py',
        f'configs/gn/{R50}.py',
        f'./configs/gn/{R50}.py',
        f'gn_det::gn/{R50}.py',
        f'../{REPOSITORY.name}/configs/gn/{R50}.py',
        str(REPOSITORY / 'configs' / 'gn' / f'{R50}.py'),
    ],
)
def test_find_takes_names_and_configs(name, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    assert find(name).name == R50


def test_find_takes_mmdetections_name():
    found = find('mask-rcnn_r50_fpn_gn-all_contrib_2x_coco')
    assert found.name == 'mask-rcnn_r50-contrib_fpn_gn-all_2x_coco'


@pytest.mark.parametrize(
    'name', ['', 'configs', 'gn', f'scratch/{R50}', f'/x/{R50}.py']
)
def test_find_takes_nothing_else(name):
    with pytest.raises(UserError, match='no model'):
        find(name)


def test_find_names_what_is_close():
    with pytest.raises(UserError, match=rf'no model {R50}x.*did you mean {R50}'):
        find(f'{R50}x')


@pytest.mark.parametrize(
    ('pattern', 'count'),
    [
        (None, len(NAMES)),
        ('gn+ws', 12),
        ('scratch/*R101', 3),
        ('r18*shapes', 1),
    ],
)
def test_matching(pattern, count):
    assert len(matching(pattern)) == count


def test_matching_nothing():
    with pytest.raises(UserError, match=r"no model of the zoo matches 'vgg'"):
        matching('vgg')


def test_the_copy_reads_like_the_original(family):
    assert [m.name for m in load_index(family)] == NAMES[: len(load_index(family))]


@pytest.mark.parametrize(
    ('key', 'value', 'words'),
    [
        ('Status', 'good', "Invalid enum value 'good' - at `$.Status`"),
        ('Status', None, 'Expected `str`, got `null` - at `$.Status`'),
        ('Status', 'none', "Results: do not fit the status 'none'"),
        ('Config', 'configs/gn/no.py', 'Config: there is no configs/gn/no.py'),
        ('Config', 'configs/c4/a.py', 'Config: configs/c4/a.py is not in configs/gn'),
        ('In Collection', 'Groups', "In Collection: 'Groups' is none of Group"),
        ('Weights Format', 'pickle', "Invalid enum value 'pickle' - at `$.Weights F"),
        ('Weights Format', 'detectron2', 'Format: detectron2 belongs under Weights To'),
        ('Weights To Convert', 'https://x', 'Weights: stands beside Weights To Conv'),
        ('Weights SHA256', 86832, 'got `int` - at `$.Weights SHA256`'),
        ('Weight Format', 'x', 'unknown field `Weight Format`'),
        ('Source', None, "Source: does not fit the status 'published'"),
        ('Results', [dict(BOX, Task='Keypoints')], "Invalid value 'Keypoints'"),
        ('Metadata', 7, 'Expected `object`, got `int` - at `$.Metadata`'),
        ('Metadata', dict(Schedule='2x'), 'either Epochs or Iterations is needed'),
        ('Published Elsewhere', ['x'], 'got `str` - at `$.Published Elsewhere[0]`'),
        ('Published Elsewhere', [dict(By='x')], 'missing required field `box AP`'),
        ('Results', [BOX, BOX], 'Results: a task stands twice'),
        ('Results', [box_ap(402)], 'Expected `float` <= 100.0 - at `$.Results[0].M'),
        ('Results', [box_ap(-1)], 'Expected `float` > 0.0'),
        ('Results', [box_ap(float('nan'))], 'Expected `float` > 0.0'),
        ('Results', [box_ap(True)], 'got `bool`'),
        ('Weights', 'gn/r50-8eee02a6.pth', '`$.Weights`'),
        ('Weights', 'https://[::1/x.pth', '`$.Weights`'),
        ('Training Log', 'file:///x.log', '`$.Training Log`'),
        ('Weights SHA256', 'xyz', "Weights SHA256: 'xyz' is no sha256"),
        ('Weights SHA256', '8eee02a7', '8eee02a7 is not what https://download'),
        ('Source', ' ', '`$.Source`'),
        ('Source', 'a | b', '`$.Source`'),
    ],
)
def test_a_wrong_key_is_named_with_file_and_model(family, key, value, words):
    message = spoil(family, lambda model, _: model.update({key: value}))
    assert f'configs/gn/metafile.yml: {R50}: ' in message
    assert words in message


@pytest.mark.parametrize(
    ('key', 'value', 'words'),
    [
        ('Epochs', 0, 'Expected `int` >= 1'),
        ('Epochs', 24.5, 'got `float`'),
        ('Training Memory (GB)', -7.1, 'Expected `float` > 0.0'),
        ('Training Memory (GB)', float('inf'), 'Expected `float` <= '),
        (SPEED, [dict(value=9, hardwear='V100')], 'unknown field `hardwear`'),
        (SPEED, [dict(V100, bakend='x')], 'unknown field `bakend`'),
        (SPEED, [V100, V100], 'Expected `array` of length <= 1'),
    ],
)
def test_a_wrong_number_of_the_training(family, key, value, words):
    message = spoil(family, lambda model, _: model['Metadata'].update({key: value}))
    assert f'configs/gn/metafile.yml: {R50}: ' in message
    assert '`$.Metadata' in message
    assert words in message


@pytest.mark.parametrize('name', ['', 'a|b', 'a b', 'a/b'])
def test_a_name_that_is_none(family, name):
    assert '`$.Name`' in spoil(family, lambda model, _: model.update(Name=name))


def test_a_source_of_no_figures(family):
    def spare(model, _):
        model.update(Status='none')
        del model['Results']

    assert "Source: does not fit the status 'none'" in spoil(family, spare)


@pytest.mark.parametrize('key', ['Name', 'Upstream Name'])
def test_two_models_of_one_name(family, key):
    def twice(model, metafile):
        metafile['Models'][1][key] = model['Name']

    assert f'model {R50} stands twice' in spoil(family, twice)


def test_two_models_of_one_config(family):
    def twice(model, metafile):
        metafile['Models'].append(dict(model, Name='another'))

    message = spoil(family, twice)
    assert message == f'configs/gn/{R50}.py stands twice: for {R50} and another'


def test_a_key_that_stands_twice(family):
    path = family / 'configs/gn/metafile.yml'
    text = path.read_text(encoding='utf-8')
    path.write_text(
        text.replace('box AP: 40.2', 'box AP: 40.2\n          box AP: 1', 1)
    )
    with pytest.raises(UserError, match=r"gn/metafile.yml: .*'box AP' stands twice"):
        load_index(family)


def test_a_metafile_that_is_not_utf8(family):
    (family / 'configs/gn/metafile.yml').write_bytes(b'Models: \xff')
    with pytest.raises(UserError, match=r'gn/metafile.yml: is not UTF-8: '):
        load_index(family)


def test_a_metafile_that_is_not_listed(family, repository):
    (family / 'configs' / 'c4').mkdir()
    shutil.copy(repository / 'configs/c4/metafile.yml', family / 'configs/c4')
    with pytest.raises(UserError, match=r'configs/c4/metafile.yml is not listed'):
        load_index(family)


def test_a_metafile_that_is_not_there(family):
    (family / 'configs/gn/metafile.yml').unlink()
    with pytest.raises(UserError, match=r'gn/metafile.yml: cannot be read: No such'):
        load_index(family)


def test_a_metafile_that_is_not_yaml(family):
    (family / 'configs/gn/metafile.yml').write_text('Models: [')
    with pytest.raises(UserError, match=r'gn/metafile.yml: is not YAML: .*line 1'):
        load_index(family)

"""`--cfg-options` as a shell hands them on."""

from __future__ import annotations

import pytest

from gn_det.workbench.errors import UserError
from gn_det.workbench.runtime.arguments import read_options


@pytest.mark.parametrize(
    'path', ['/data/my sets/coco, 2017', '/a,b', '[1]', '1', 'x=y', '(', "it's"]
)
def test_the_folder_of_the_data_is_taken_as_it_is(path):
    key = 'train_dataloader.dataset.data_root'
    found = read_options([f'data_root={path}', 'a.b=1,2', f'{key}={path}'])
    assert found == {'data_root': path, 'a.b': [1, 2], key: path}


def test_no_options():
    assert read_options(None) == {}


def test_no_data_root():
    key = 'test_dataloader.dataset.data_root'
    assert read_options([f'{key}=None']) == {key: None}


@pytest.mark.parametrize(
    ('word', 'said'),
    [('lr', "expected KEY=VALUE, got 'lr'"), ('x=(1,2', r'--cfg-options: .*\(1,2')],
)
def test_words_that_are_no_option(word, said):
    with pytest.raises(UserError, match=said):
        read_options([word])

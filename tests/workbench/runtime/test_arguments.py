"""`--cfg-options` as a shell hands them on."""

from __future__ import annotations

import argparse

import pytest

from gn_det.workbench.errors import UserError
from gn_det.workbench.runtime.arguments import CfgOptions


def parsed(*words: str) -> dict:
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions)
    return parser.parse_args(words).cfg_options


@pytest.mark.parametrize(
    'path', ['/data/my sets/coco, 2017', '/a,b', '[1]', '1', 'x=y', '(', "it's"]
)
def test_the_folder_of_the_data_is_taken_as_it_is(path):
    key = 'train_dataloader.dataset.data_root'
    found = parsed('--cfg-options', f'data_root={path}', 'a.b=1,2', f'{key}={path}')
    assert found == {'data_root': path, 'a.b': [1, 2], key: path}


def test_options_given_in_several_places():
    found = parsed('--cfg-options', 'data_root=a b', 'x=1', '--cfg-options', 'y=None')
    assert found == {'data_root': 'a b', 'x': 1, 'y': None}


def test_no_data_root():
    key = 'test_dataloader.dataset.data_root'
    assert parsed('--cfg-options', f'{key}=None') == {key: None}


@pytest.mark.parametrize(
    ('word', 'said'),
    [('lr', "expected KEY=VALUE, got 'lr'"), ('x=(1,2', r'--cfg-options: .*\(1,2')],
)
def test_words_that_are_no_option(word, said):
    with pytest.raises(UserError, match=said):
        parsed('--cfg-options', word)

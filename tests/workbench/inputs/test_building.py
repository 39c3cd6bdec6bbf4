"""A setting that no class knows is named; other errors stay what they are."""

from __future__ import annotations

import pytest
from mmengine.config import Config
from mmengine.registry import Registry

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.building import name_wrong_settings

PARTS = Registry('building', scope='building')


@PARTS.register_module()
class Inner:
    def __init__(self, size: int = 1) -> None:
        self.size = size


@PARTS.register_module()
class Strict:
    def __init__(self, size: int) -> None:
        if size < 0:
            raise ValueError(f'size is {size}')
        assert size < 9


@PARTS.register_module()
class Outer:
    def __init__(self, inner: dict, **kwargs: object) -> None:
        super().__init__()
        self.inner = PARTS.build(inner)
        self.rest = Inner(**kwargs)


def build(part: dict) -> None:
    cfg = Config(dict(part=part), cfg_text='…', filename='my.py')
    with name_wrong_settings(cfg):
        PARTS.build(cfg.part)


@pytest.mark.parametrize(
    ('part', 'said'),
    [
        (dict(inner=dict(type='Inner'), typo=1), r'^part\.typo: Outer has no such'),
        (
            dict(inner=dict(type='Inner', siez=1)),
            r'siez: Inner has no such setting \(did you mean size\?\)',
        ),
        (
            dict(inner=dict(type='Iner')),
            r'type: Iner is not in the registry .*\(did you mean Inner',
        ),
        (dict(inner=dict(type='Strict')), r'part\.inner: .* missing 1 required .*size'),
        (
            dict(inner=dict(type='Strict', size=-1)),
            r'part\.inner: ValueError in .*: siz',
        ),
        (
            dict(inner=dict(type='Strict', size=9)),
            r'AssertionError in .*: assert .* < 9',
        ),
    ],
)
def test_the_place_of_a_wrong_setting_is_named(part, said):
    with pytest.raises(UserError, match=said) as error:
        build(dict(type='Outer', **part))
    assert 'mend my.py or --cfg-options' in str(error.value)


def test_errors_of_the_code_keep_their_kind():
    cfg = Config(dict(part=dict(type='Inner', size=1)))
    with pytest.raises(TypeError, match='elsewhere'), name_wrong_settings(cfg):
        Inner(elsewhere=1)

    def resize() -> None:
        pass

    # Even of a word that stands in the config.
    with pytest.raises(TypeError, match='size'), name_wrong_settings(cfg):
        resize(size=1)
    with pytest.raises(KeyError, match='colour'), name_wrong_settings(cfg):
        {}['colour']
    build(dict(type='Outer', inner=dict(type='Inner', size=2), size=3))

"""Parts of a config, and where two configs differ."""

from __future__ import annotations

from mmengine.config import Config

from gn_det.workbench.inputs.config_parts import differences
from gn_det.workbench.loading.dumped_config import parse_config


def test_differences_from_a_dumped_config():
    # The original mmengine dumps no classes; OneDL's writes their names.
    before = "model = dict(a=1, b=(1, 2), c=dict(type='builtins.int'))\nother = 1\n"
    now = Config(dict(model=dict(a=2, b=[1, 2], c=dict(type=int), d='x'), other=2))
    found = differences(now, parse_config(before), ('model', 'absent'))
    assert found == ['model.a: 2, was 1', "model.d: 'x', was None"]

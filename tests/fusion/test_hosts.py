"""Blocks of every host: fused, they are equal bit by bit, and nothing is left out."""

from __future__ import annotations

import copy

import pytest
import torch

import gn_det
from benchmarks.fusion_coverage import host_row, results
from benchmarks.results import fusion_path, read_rows
from gn_det.fusion import core
from tests.fusion.detectors import randomise
from tests.fusion.hosts import MODELS, need
from tests.fusion.pairs import norms_of, pairs, taken_in

PAGE = read_rows(fusion_path('hosts'))
REMEASURE = (
    'run `python benchmarks/fusion_coverage.py hosts` and '
    '`python benchmarks/coverage_page.py`'
)


@pytest.mark.parametrize('name', MODELS)
def test_equal_and_fused(name):
    need(name.partition('-')[0])
    model, x = MODELS[name]()
    randomise(model)
    ours = copy.deepcopy(model)
    report = gn_det.fuse(ours)
    for training in (True, False):
        model.train(training)
        ours.train(training)
        expected, found = results(model, x), results(ours, x)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(found[key], value), key
        assert len(norms_of(ours)) == len(report)
        room = pairs(lambda: results(model, x))
        made = taken_in(lambda: results(ours, x))
        assert room.total() > 0
        assert made == room
    counted = {kind: len(getattr(report, kind)) for kind in core.KINDS}
    assert {k: n for k, n in counted.items() if n}.keys() == made.keys()
    assert not report.untouched
    # What docs/coverage.md says of it.
    found = host_row(name, model, report)
    known = next((row for row in PAGE if row['model'] == name), {})
    assert known.items() >= found.items(), REMEASURE

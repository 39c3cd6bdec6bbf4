"""A short form of `tests.attacks.annotations`."""

from __future__ import annotations

from tests.attacks.annotations import run


def test_mutated_files_end_in_one_line_or_change_nothing(shapes):
    ends = run(shapes, 60, seed=1)
    assert ends['trace'] == ends['silent'] == 0
    assert ends['refused in one line'] > 40
    assert ends.total() == 80

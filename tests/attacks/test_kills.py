"""A killed training loses nothing; `python -m tests.attacks.kills` kills fifty."""

from __future__ import annotations

from tests.attacks import kills


def test_a_kill_of_each_kind_is_survived(shapes, tmp_path):
    found = kills.attack(shapes, tmp_path, kills=len(kills.KINDS), seed=3)
    assert {kind: counts['equal'] for kind, counts in found.items()} == dict.fromkeys(
        kills.KINDS, 1
    )

"""Damaged run folders; `python -m tests.attacks.run_folders` tries hundreds."""

from __future__ import annotations

from tests.attacks import run_folders


def test_a_damaged_run_has_a_page_or_one_line(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    outcomes = run_folders.run(15)
    assert {result for _, result in outcomes} <= {'page', 'one line'}, outcomes

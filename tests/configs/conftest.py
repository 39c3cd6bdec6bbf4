"""gn_det before mmdet, whose operators it supplies; mmdet's modules registered."""

from __future__ import annotations

import pytest

import gn_det  # noqa: F401


@pytest.fixture(scope='session', autouse=True)
def registered():
    from mmdet.utils import register_all_modules

    register_all_modules()

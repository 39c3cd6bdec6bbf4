"""Options that make the quickstart config a matter of seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.running import SMALL


@pytest.fixture(scope='session')
def small_options(shapes: Path) -> tuple[str, ...]:
    """`--cfg-options` for two epochs of three iterations."""
    return ('--cfg-options', f'data_root={shapes}', *SMALL)

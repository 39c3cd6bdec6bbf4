"""What the tests of downloads share."""

from __future__ import annotations

import pytest

from tests.workbench.zoo.server import serve


@pytest.fixture
def server():
    """A host on this machine, whose faults a test chooses."""
    with serve() as state:
        yield state


@pytest.fixture
def cache(tmp_path):
    """The folder that files are downloaded to."""
    return tmp_path / 'cache'

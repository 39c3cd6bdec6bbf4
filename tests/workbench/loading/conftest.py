"""The host on this machine that downloads are tested with."""

from __future__ import annotations

from tests.workbench.zoo.conftest import server

__all__ = ['server']

"""What an attacker puts into a file: it leaves a trace where it runs."""

from __future__ import annotations

import os
from pathlib import Path


class Evil:
    """Makes a folder when it is unpickled with full rights."""

    def __init__(self, place: str | Path) -> None:
        self.place = str(place)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.place,)


def program(place: str | Path) -> str:
    """The text of a config that makes a folder when it is run."""
    return f'import os\nos.mkdir({str(place)!r})\nmodel = dict()\n'

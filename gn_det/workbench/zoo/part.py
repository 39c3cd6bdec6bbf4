"""The partial file of a download, beside the final name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from gn_det.workbench.errors import UserError
from gn_det.workbench.zoo.web_address import without_password


@dataclass(frozen=True)
class Version:
    """A server's mark of a version of a file (ETag or date), and its whole length."""

    mark: str
    total: int | None


class Part:
    """What has arrived of a file so far, and a note of where it came from.

    The note holds the address and the server's mark and length of that version of the
    file, without which a changed file could be joined to the old one's beginning.
    When the disk refuses, every method that writes raises a UserError and keeps what
    is there.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f'{target.name}.part')
        self._note = target.with_name(f'{target.name}.part.json')

    def size(self) -> int:
        """Bytes that have arrived."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def version_from(self, url: str) -> Version | None:
        """What the server said of the bytes that are here, if it was this one."""
        try:
            note = json.loads(self._note.read_text())
            same = note['url'] == without_password(url)
            return Version(str(note['mark']), note['total']) if same else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def start_again(self, url: str, mark: str | None, total: int | None) -> None:
        """Forget what arrived; the next bytes come from here."""
        self.discard()
        if mark:
            note = {'url': without_password(url), 'mark': mark, 'total': total}
            with self._writing():
                self._note.write_text(json.dumps(note))

    def append(self, blocks: Iterable[bytes]) -> None:
        """Add bytes as they arrive."""
        with self._writing(), open(self.path, 'ab') as file:
            for block in blocks:
                file.write(block)

    def check_space(self, total: int) -> None:
        """Refuse if the disk has no room for what is missing of the file's length."""
        needed = total - self.size()
        disk = shutil.disk_usage(self.path.parent)
        # Some network file systems report no size at all.
        if disk.total and needed > disk.free:
            raise UserError(
                f'{self.path.parent} has {_mib(disk.free)} free and {self.target.name} '
                f'needs {_mib(needed)} more; free some space or choose another folder'
            )

    def discard(self) -> None:
        """Remove what arrived."""
        with self._writing():
            self.path.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)

    def finish(self) -> None:
        """Give the whole file its final name, durably."""
        with self._writing():
            with open(self.path, 'rb') as file:
                os.fsync(file.fileno())
            os.replace(self.path, self.target)
            self._note.unlink(missing_ok=True)
            folder = os.open(self.target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        # requests' own errors are OSErrors too, and tell of the network.
        except requests.RequestException:
            raise
        except OSError as error:
            kept = (
                f'the {_mib(self.size())} already there are kept and the next call '
                'goes on from them; '
                if self.size()
                else ''
            )
            raise UserError(
                f'cannot write {self.path}: {error.strerror or error}; {kept}free some '
                'space or choose another folder'
            ) from error


def _mib(size: int) -> str:
    return f'{size / 2**20:.1f} MiB'

"""What a file is expected to hold: a digest, whole or its first digits."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from gn_det.workbench.errors import UserError

_BLOCK_BYTES = 2**20
_LENGTHS = {'sha256': 64, 'md5': 32}
# OpenMMLab's and torch's convention: eight or more digits of sha256 before the suffix.
_SHA256_NAME = re.compile(r'-([0-9a-f]{8,64})\.[a-z]+$')
_DATE = re.compile(r'(19|20)\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])')
# detectron2's convention: the model or its iteration, then six digits of md5.
_MD5_NAME = re.compile(r'model_(?:final|\d{7})_([0-9a-f]{6})\.pkl$')


@dataclass(frozen=True)
class Digest:
    """The first digits of a file's `sha256` or `md5`, in lower case."""

    algorithm: str
    value: str

    @classmethod
    def parse(cls, algorithm: str, value: str) -> Digest:
        """A digest as somebody wrote it, whole or its first six digits or more.

        Raises:
            UserError: if it is not a hexadecimal number of such a length.
        """
        digits = value.strip().lower()
        length = _LENGTHS[algorithm]
        if not re.fullmatch(f'[0-9a-f]{{6,{length}}}', digits):
            raise UserError(
                f'{value!r} is no {algorithm}; give its {length} hexadecimal digits, '
                'or the first six or more'
            )
        return cls(algorithm, digits)

    @classmethod
    def from_name(cls, name: str) -> Digest | None:
        """The digest that OpenMMLab or detectron2 wrote into a file's name."""
        if found := _MD5_NAME.search(name):
            return cls('md5', found[1])
        found = _SHA256_NAME.search(name)
        if found is None or _DATE.fullmatch(found[1]):
            return None
        return cls('sha256', found[1])

    @property
    def is_whole(self) -> bool:
        """Whether no digit is missing; the first few only tell damage from none."""
        return len(self.value) == _LENGTHS[self.algorithm]

    def matches(self, path: Path) -> bool:
        """Whether a file has this digest."""
        return file_digest(path, self.algorithm).startswith(self.value)

    def contradicts(self, other: Digest) -> bool:
        """Whether no file can have both."""
        shorter = min(len(self.value), len(other.value))
        same = self.value[:shorter] == other.value[:shorter]
        return self.algorithm == other.algorithm and not same

    def __str__(self) -> str:
        return f'{self.algorithm} {self.value}'


def file_digest(path: str | Path, algorithm: str = 'sha256') -> str:
    """The digest of a file's content in hexadecimal digits."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, 'rb') as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()

"""Whether a file of weights is whole: its checksums, and the digests given for it."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from pathlib import Path
from typing import IO

from gn_det.workbench.errors import UserError
from gn_det.workbench.loading.digests import Digest, file_digest

_IS_FOLDER = 0x10
# Of a safetensors file, in its own metadata, under this name.
_SEAL = 'sha256'
_BLANK = '0' * 64


def is_whole(path: str | Path) -> bool:
    """Whether a file that `torch.save` wrote is complete and undamaged."""
    return archive_damage(path) is None


def archive_damage(file: str | Path | IO[bytes]) -> str | None:
    """What is damaged in an archive of torch, or None; torch itself does not look.

    It is a zip file: its directory stands at the end, so a file cut short has none, and
    every member carries a CRC-32, which any single changed bit shows in. Archives
    written without (`torch.serialization.set_crc32_options(False)`) are taken as they
    are.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            for member in members:
                # Here torch would read other bytes than zipfile, or none.
                if (
                    member.compress_type
                    or member.compress_size != member.file_size
                    or (member.external_attr & _IS_FOLDER and member.file_size)
                ):
                    return f'the entry of {member.filename}'
            if not any(member.CRC for member in members if member.file_size):
                return None
            damaged = archive.testzip()
            return None if damaged is None else f'the checksum of {damaged}'
    # A damaged file can make zipfile raise anything at all.
    except Exception as error:
        return str(error) or type(error).__name__


def check_digests(path: Path) -> None:
    """See that a file has the digest in its name, and the one in `PATH.sha256`.

    Raises:
        UserError: if it has not.
    """
    beside = path.with_name(f'{path.name}.sha256')
    wanted = [(Digest.from_name(path.name), 'its name')]
    if beside.is_file():
        wanted.append((_read_digest(beside), beside.name))
    for digest, place in wanted:
        if digest is None:
            continue
        found = file_digest(path, digest.algorithm)
        if not found.startswith(digest.value):
            raise UserError(
                f'{path} is damaged, or another file: {place} gives the {digest}, its '
                f'content has {found[: len(digest.value)]}; get it again, or if these '
                'digits are no digest of it, '
                + ('rename it' if place == 'its name' else f'remove {place}')
            )


def _read_digest(path: Path) -> Digest:
    """The digest in a file as `sha256sum` writes it."""
    text = path.read_text(encoding='utf-8', errors='replace')
    found = re.match(r'\\?([0-9a-fA-F]{64})\b', text)
    if found is None:
        raise UserError(f'{path} holds no sha256; remove it, or write it anew')
    return Digest.parse('sha256', found[1])


def sealed(content: bytes, metadata: dict[str, str]) -> bytes:
    """A safetensors file with this metadata and its own sha256 among them.

    The digest is that of the whole file with zeros where its 64 digits stand.
    """
    size = int.from_bytes(content[:8], 'little')
    header = json.loads(content[8 : 8 + size])
    header['__metadata__'] = {_SEAL: _BLANK, **metadata}
    text = json.dumps(header, separators=(',', ':')).encode()
    # Tensors begin at a multiple of eight bytes.
    text += b' ' * (-len(text) % 8)
    blank = b''.join((len(text).to_bytes(8, 'little'), text, content[8 + size :]))
    place = blank.index(_entry(_BLANK))
    digest = hashlib.sha256(blank).hexdigest()
    return blank[:place] + _entry(digest) + blank[place + len(_entry(digest)) :]


def check_seal(path: Path, metadata: dict[str, str]) -> None:
    """See that a safetensors file has the sha256 in its metadata, if it has one there.

    Raises:
        UserError: if it has another.
    """
    digest = metadata.get(_SEAL)
    if digest is None or not re.fullmatch('[0-9a-f]{64}', digest):
        return
    with open(path, 'rb') as file:
        size = file.read(8)
        header = file.read(int.from_bytes(size, 'little'))
        found = hashlib.sha256(size + header.replace(_entry(digest), _entry(_BLANK), 1))
        while block := file.read(2**20):
            found.update(block)
    if found.hexdigest() != digest:
        raise UserError(
            f'{path} is damaged, or was changed after it was published: its metadata '
            f'give the sha256 {digest[:8]}…, its content has '
            f'{found.hexdigest()[:8]}…; get it again'
        )


def _entry(digest: str) -> bytes:
    return f'"{_SEAL}":"{digest}"'.encode()

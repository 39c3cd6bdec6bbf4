"""Checkpoints from the network into the cache: whole, checked, or not at all."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gn_det.workbench.atomic_files import finish
from gn_det.workbench.errors import UserError
from gn_det.workbench.loading.digests import file_digest
from gn_det.workbench.loading.system_errors import name_refused_files
from gn_det.workbench.zoo.mirrors import MIRRORS_VARIABLE, addresses
from gn_det.workbench.zoo.sources import Source, resolve
from gn_det.workbench.zoo.transfer import (
    CertificateRefused,
    TransferFailed,
    transfer,
)
from gn_det.workbench.zoo.web_address import host_of, without_password

OFFLINE_VARIABLE = 'GN_DET_OFFLINE'
TIMEOUT_S = 30.0
_LONGEST_TIMEOUT_S = 86_400.0

_logger = logging.getLogger(__name__)


@name_refused_files
def download(
    source: str,
    dest: str | Path | None = None,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    mirrors: Iterable[str] | None = None,
    progress: bool = True,
    offline: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> Path:
    """The file of a model, downloaded unless a good copy is in the cache.

    Several processes may ask for the same file at once: one downloads it. The final
    name never holds a part of a file, nor one whose digest is wrong. A download that
    stops leaves `NAME.part`; the next one goes on from it where a digest is known.
    Proxies are taken from the environment (`HTTPS_PROXY`, `NO_PROXY`), certificates are
    always verified.

    Args:
        source: a model of the zoo, `open-mmlab://KEY`, or an `http(s)://` address.
        dest: the folder; by default torch's hub folder, which mmengine uses too.
        sha256: the expected digest, whole or its first digits; by default the zoo's or
            the one in the file's name. A file in the cache is checked against it too.
        md5: likewise, for detectron2's files. A file must have every digest known.
        mirrors: `FROM=TO` starts of addresses, tried first; see `mirrors.addresses`.
        progress: whether to show a bar; on a terminal only.
        offline: use the cache alone; the environment variable `GN_DET_OFFLINE=1` says
            so too.
        timeout_s: how long a host may be silent, at most a day; in as long it has to
            send at least 1 KiB a second.

    Returns:
        The path of the file.

    Raises:
        UserError: for an unknown name, if every host fails (each is named with its
            reason), if the folder cannot be written, or if offline without a copy.
    """
    if not 0 < timeout_s <= _LONGEST_TIMEOUT_S:
        raise UserError(
            f'--timeout: expected seconds above 0, at most {_LONGEST_TIMEOUT_S:g}, '
            f'got {timeout_s:g}'
        )
    wanted = resolve(source, sha256, md5)
    target = _folder(dest) / wanted.file_name
    tried = addresses(wanted.url, mirrors)
    if _is_good(target, wanted):
        return target
    if target.exists():
        digests = ' and '.join(map(str, wanted.digests))
        _logger.warning('%s does not have %s and is not used', target, digests)
    if offline or os.environ.get(OFFLINE_VARIABLE, '') not in ('', '0'):
        raise UserError(
            f'offline, and there is no good copy of {wanted.file_name} in '
            f'{target.parent}; put one there from '
            f'{without_password(wanted.url)}'
        )
    with _alone(target):
        # Another process may have brought it while this one waited.
        if not _is_good(target, wanted):
            _download(wanted, target, tried, timeout_s, progress)
    return target


def download_checkpoint(name: str) -> Path:
    """The weights of a model of the zoo as a checkpoint that mmdet loads.

    Those of another project are converted, beside the file that was downloaded.

    Raises:
        UserError: as `download`, and if the conversion fails.
    """
    from gn_det.workbench.zoo.convert import convert_file
    from gn_det.workbench.zoo.index import find

    path = download(name)
    weights = find(name).weights
    if not weights.needs_conversion:
        return path
    converted = path.with_name(f'{path.stem}.{file_digest(path)[:8]}.mmdet.pth')
    if not converted.is_file():
        convert_file(path, converted, weights.format)
    return converted


def download_all(
    sources: Sequence[str], dest: str | Path | None = None, **options: Any
) -> Iterator[Path]:
    """`download` each source; one that fails does not keep the next from coming.

    Raises:
        UserError: for a digest beside several sources, and at the end with the text of
            every failure.
    """
    if len(sources) > 1 and {options.get('sha256'), options.get('md5')} != {None}:
        raise UserError('--sha256 and --md5 are for one file; download it alone')
    failures = []
    for source in sources:
        try:
            yield download(source, dest, **options)
        except UserError as error:
            failures.append(str(error))
    if failures:
        raise UserError(' | '.join(failures))


def _folder(dest: str | Path | None) -> Path:
    if dest is None:
        import torch

        return Path(torch.hub.get_dir()) / 'checkpoints'
    try:
        folder = Path(dest).expanduser()
    except RuntimeError as error:
        raise UserError(f'{dest}: there is no such user') from error
    if folder.exists() and not folder.is_dir():
        raise UserError(f'{folder} is a file; name the folder to download into')
    return folder


def _is_good(path: Path, wanted: Source) -> bool:
    if path.is_dir():
        raise UserError(f'{path} is a folder where the file should be; move it away')
    if not path.is_file():
        return False
    return all(digest.matches(path) for digest in wanted.digests)


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Hold the file's lock; the processes that wait for it say so."""
    lock_file = target.with_name(f'.{target.name}.lock')
    lock = FileLock(lock_file)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=1)
        except Timeout:
            _logger.warning('another process downloads %s; waiting for it', target.name)
            lock.acquire()
    except OSError as error:
        raise UserError(
            f'cannot write in {target.parent}: {error.strerror or error}; choose '
            'another folder'
        ) from error
    try:
        yield
    finally:
        # While it is held: filelock looks whether the file it locked is still there.
        lock_file.unlink(missing_ok=True)
        lock.release()


def _download(
    wanted: Source, target: Path, tried: list[str], timeout_s: float, progress: bool
) -> None:
    part = target.with_name(f'{target.name}.part')
    failures: list[str] = []
    refused = False
    if wanted.digests and not part.is_symlink() and _is_good(part, wanted):
        finish(part, target)
        return
    for url in tried:
        try:
            _from_one(url, wanted, part, timeout_s, progress)
        except TransferFailed as error:
            refused |= isinstance(error, CertificateRefused)
            failures.append(f'{host_of(url)}: {error}')
            if url != tried[-1]:
                _logger.warning('%s; trying another host', failures[-1])
            continue
        finish(part, target)
        _say_what_was_checked(wanted, target)
        return
    if part.is_file() and not part.stat().st_size:
        part.unlink()
    advice = 'a certificate is never passed over; ' if refused else ''
    raise UserError(
        f'cannot download {wanted.file_name}: {"; ".join(failures)}. {advice}name a '
        f'mirror with --mirror FROM=TO or {MIRRORS_VARIABLE}, or put the file at '
        f'{target}'
    )


def _from_one(
    url: str, wanted: Source, part: Path, timeout_s: float, progress: bool
) -> None:
    """Fill the partial file from one address and check it."""
    while True:
        began_with = part.exists() and part.stat().st_size
        host = transfer(
            url,
            part,
            has_digest=bool(wanted.digests),
            timeout_s=timeout_s,
            progress=progress,
        )
        wrong = [digest for digest in wanted.digests if not digest.matches(part)]
        if not wrong:
            return
        digest = wrong[0]
        found = file_digest(part, digest.algorithm)[: len(digest.value)]
        part.unlink()
        # What an earlier run left may be what is wrong: ask this host for all of it.
        if not began_with:
            led = '' if host == host_of(url) else f'led to {host}, which '
            raise TransferFailed(
                f'{led}sent a wrong file ({digest.algorithm} {found}, not '
                f'{digest.value})'
            )


def _say_what_was_checked(wanted: Source, target: Path) -> None:
    """Name the whole sha256 of a file whose publisher gives a few digits, or none."""
    if any(digest.is_whole for digest in wanted.digests):
        return
    known = ' and '.join(
        f'{4 * len(digest.value)} bits of its {digest.algorithm}'
        for digest in wanted.digests
    )
    _logger.warning(
        '%s: the publisher gives %s; the whole is sha256 %s, which --sha256 checks',
        target.name,
        f'only {known}' if known else 'no digest',
        file_digest(target),
    )

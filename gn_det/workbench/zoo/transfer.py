"""One file over HTTP(S) into a partial file, from a host that is not trusted."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin

import requests
from tqdm import tqdm

from gn_det.version import __version__
from gn_det.workbench.errors import UserError
from gn_det.workbench.zoo.web_address import host_of

# No detector's weights come near it.
MOST_BYTES = 8 * 2**30
# Over each stretch of the timeout; a host that sends less holds the run up for days.
LEAST_BYTES_PER_S = 1024
_BLOCK_BYTES = 2**16
_TRIES = 3
# What a try has to bring for the next to be for free.
_PROGRESS_BYTES = 2**15
_PAUSE_S = 0.5
_CERTIFICATE = re.compile(r'certificate verify failed: ([^(]+?)\.?\s*\(')


class TransferFailed(Exception):
    """This host does not deliver the file; its text is the reason, for people."""


class CertificateRefused(TransferFailed):
    """The host's certificate is expired, or nobody known vouches for it."""


class _Broken(TransferFailed):
    """The connection broke; what arrived is kept and the rest can be asked for."""


class _Silent(_Broken):
    """Nothing came for as long as a host may be silent."""


def transfer(
    url: str, path: Path, *, has_digest: bool, timeout_s: float, progress: bool
) -> str:
    """Bring a partial file to its full length from one address.

    A broken connection is taken up again; three tries in a row that bring next to
    nothing are enough. Redirects never lead from https to http.

    Args:
        url: the address.
        path: the partial file. What is in it is not asked for again if the caller
            checks a digest of the whole afterwards; otherwise it is written anew. A
            link in its place is removed, not followed.
        has_digest: whether there is such a digest.
        timeout_s: how long a host may be silent, and over which it has to send
            `LEAST_BYTES_PER_S`.
        progress: whether to show a bar; on a terminal only.

    Returns:
        The host that sent it.

    Raises:
        TransferFailed: if the host does not deliver it.
        UserError: if the disk is full or cannot be written.
    """
    tries = _TRIES
    with _Session() as session, _open(path) as file:
        if not has_digest:
            file.truncate(0)
        while True:
            began_with = _size(file)
            try:
                return _try(session, url, file, has_digest, timeout_s, progress)
            except _Broken as error:
                brought = _size(file) - began_with
                lively = brought >= _PROGRESS_BYTES and not isinstance(error, _Silent)
                tries = _TRIES if lively else tries - 1
                if not tries:
                    raise TransferFailed(str(error)) from error
            time.sleep(_PAUSE_S)


class _Session(requests.Session):
    """Requests of ours, which no redirect makes insecure."""

    def __init__(self) -> None:
        super().__init__()
        self.headers.update(
            {'User-Agent': f'gn_det/{__version__}', 'Accept-Encoding': 'identity'}
        )

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        if target is None:
            return None
        whole = urljoin(resp.url, target).lower()
        if resp.url.startswith('https:') and not whole.startswith('https:'):
            raise TransferFailed(f'leads to {host_of(whole)} without encryption')
        return target


@contextlib.contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    with _writing(path):
        if path.is_symlink():
            path.unlink()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, 'O_NOFOLLOW', 0)
        file = os.fdopen(os.open(path, flags, 0o666), 'ab', buffering=0)
    with file:
        yield file


@contextlib.contextmanager
def _writing(path: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f'cannot write {path}: {error.strerror or error}; what arrived is kept '
            'and the next call goes on from it; free some space or choose another '
            'folder'
        ) from error


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _try(
    session: requests.Session,
    url: str,
    file: BinaryIO,
    has_digest: bool,
    timeout_s: float,
    progress: bool,
) -> str:
    offset = _size(file) if has_digest else 0
    headers = {'Range': f'bytes={offset}-'} if offset else {}
    blocks = _received(session, url, headers, timeout_s)
    try:
        response = next(blocks)
        if offset and response.status_code == 416:
            file.truncate(0)
            raise _Broken(f'has less than the {offset} bytes already here')
        _check(response, has_digest)
        if response.status_code == 206:
            total = _range_total(response, file, offset)
        else:
            offset, total = 0, _length(response, has_digest)
            file.truncate(0)
        if total is not None and total > MOST_BYTES:
            raise TransferFailed(f'speaks of {total} bytes, more than weights have')
        with tqdm(
            total=total,
            initial=offset,
            unit='B',
            unit_scale=True,
            desc=host_of(response.url),
            disable=not (progress and sys.stderr.isatty()),
        ) as bar:
            for block in blocks:
                with _writing(file.name):
                    file.write(block)
                bar.update(len(block))
                if _size(file) > (MOST_BYTES if total is None else total):
                    file.truncate(0)
                    raise TransferFailed('sends more than it said, or than weights are')
    except _Broken as error:
        # Of an answer that had begun.
        if _size(file) > offset and not isinstance(error, _Silent):
            raise _Broken(f'broke off after {_size(file)} bytes') from error
        raise
    finally:
        blocks.close()
    if total is not None and _size(file) != total:
        raise _Broken(f'broke off after {_size(file)} bytes of {total}')
    if not _size(file) and not has_digest:
        raise TransferFailed('sent an empty file')
    return host_of(response.url)


def _check(response: requests.Response, has_digest: bool) -> None:
    """Refuse an answer that is not the file."""
    asked_for_part = 'Range' in response.request.headers
    if response.status_code == 206 and not asked_for_part:
        raise TransferFailed('sent a part of the file that nobody asked for')
    if response.status_code not in (200, 206):
        raise TransferFailed(
            f'answered {response.status_code} {response.reason or ""}'.rstrip()
        )
    encoding = response.headers.get('Content-Encoding', 'identity')
    if encoding.lower() != 'identity':
        raise TransferFailed('sent the file compressed, which was not asked for')
    # Without a digest to tell, it would pass for the file.
    web_page = response.headers.get('Content-Type', '').lower().startswith('text/html')
    if web_page and not has_digest:
        raise TransferFailed('sent a web page')


def _range_total(
    response: requests.Response, file: BinaryIO, offset: int
) -> int | None:
    """The length of the whole, of which a partial answer sends the rest."""
    given = response.headers.get('Content-Range', '')
    found = re.fullmatch(r'bytes (\d{1,19})-\d{1,19}/(\d{1,19}|\*)', given)
    if found is None or int(found[1]) != offset:
        file.truncate(0)
        raise _Broken(f'sent other bytes ({given or "unnamed"}) than asked for')
    return None if found[2] == '*' else int(found[2])


def _length(response: requests.Response, has_digest: bool) -> int | None:
    length = response.headers.get('Content-Length')
    if length is not None:
        if not re.fullmatch(r'[0-9]{1,19}', length):
            raise TransferFailed(f'names no length: {length[:20]!r}')
        return int(length)
    if has_digest or response.headers.get('Transfer-Encoding') == 'chunked':
        return None
    raise TransferFailed('does not say how long the file is, and no digest is known')


def _received(
    session: requests.Session, url: str, headers: dict[str, str], timeout_s: float
) -> Iterator:
    """The answer of a host, then the blocks of its body.

    A socket's timeout starts anew with each byte, also of the head; so a thread reads,
    and what it has brought is counted here.
    """
    arrived: queue.Queue = queue.Queue(maxsize=16)
    left = threading.Event()
    reader = threading.Thread(
        target=_read, args=(session, url, headers, timeout_s, arrived, left)
    )
    # One that hangs in a system call does not keep the process from ending.
    reader.daemon = True
    reader.start()
    try:
        while True:
            end, received = time.monotonic() + timeout_s, 0
            while received < LEAST_BYTES_PER_S * timeout_s:
                try:
                    item = arrived.get(timeout=max(end - time.monotonic(), 0.001))
                except queue.Empty:
                    if received:
                        raise TransferFailed(
                            f'sends less than {LEAST_BYTES_PER_S} bytes a second'
                        ) from None
                    raise _Silent(f'was silent for {timeout_s:g} s') from None
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise _failure(item, timeout_s) from item
                received += len(item) if isinstance(item, bytes) else 0
                yield item
    finally:
        left.set()


def _read(
    session: requests.Session,
    url: str,
    headers: dict[str, str],
    timeout_s: float,
    arrived: queue.Queue,
    left: threading.Event,
) -> None:
    def put(item: object) -> None:
        while not left.is_set():
            with contextlib.suppress(queue.Full):
                arrived.put(item, timeout=1)
                return

    try:
        with session.get(
            url, headers=headers, stream=True, timeout=timeout_s
        ) as response:
            put(response)
            while not left.is_set():
                block = response.raw.read1(_BLOCK_BYTES)
                if not block:
                    break
                put(block)
        put(None)
    # Whatever the reading of a hostile answer can raise is handed on.
    except Exception as error:
        put(error)


def _failure(error: BaseException, timeout_s: float) -> TransferFailed:
    """Why a host does not answer, in words."""
    text = str(error)
    if isinstance(error, TransferFailed):
        return error
    if isinstance(error, requests.exceptions.SSLError):
        if found := _CERTIFICATE.search(text):
            return CertificateRefused(f'has a bad certificate ({found[1]})')
        return TransferFailed('no secure connection could be made')
    if isinstance(error, requests.exceptions.ProxyError):
        return TransferFailed('cannot be reached through the proxy of the environment')
    if isinstance(error, requests.exceptions.TooManyRedirects):
        return TransferFailed('leads in a circle')
    if isinstance(error, requests.exceptions.Timeout):
        return TransferFailed(f'was silent for {timeout_s:g} s')
    if 'NameResolutionError' in text:
        return TransferFailed('unknown host, or no network')
    if 'refused' in text:
        return TransferFailed('refuses the connection')
    if isinstance(error, requests.ConnectionError):
        return TransferFailed('broke off before it answered')
    # requests' own errors are ValueErrors too where an address is none.
    if isinstance(error, ValueError):
        return TransferFailed('is no usable address, or leads to none')
    # urllib3's and http.client's, out of the body.
    return _Broken('broke off')

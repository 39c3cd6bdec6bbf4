"""One file over HTTP(S) into a partial file, going on where an earlier try stopped."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator

import requests
from tqdm import tqdm

from gn_det.version import __version__
from gn_det.workbench.zoo.part import Part, Version
from gn_det.workbench.zoo.web_address import host_of

# What has not filled a block is lost when a connection breaks.
_BLOCK_BYTES = 2**14
_TRIES = 3
_PAUSE_S = 0.5
_CERTIFICATE = re.compile(r'certificate verify failed: ([^(]+?)\.?\s*\(')


class TransferFailed(Exception):
    """This host does not deliver the file; its text is the reason, for people."""


class CertificateRefused(TransferFailed):
    """The host's certificate is expired, or nobody known vouches for it."""


class _Broken(TransferFailed):
    """The connection broke; what arrived is kept and the rest can be asked for."""


def transfer(
    url: str, part: Part, *, has_digest: bool, timeout_s: float, progress: bool
) -> str:
    """Bring a partial file to its full length from one address.

    A broken connection is taken up again as long as bytes arrive; three tries in a row
    without any are enough.

    Args:
        url: the address.
        part: what has arrived already is not asked for again, if the server can go on
            and a digest will tell whether the bytes are of the same file, or without
            one if its ETag or date says so.
        has_digest: whether the caller checks a digest of the whole afterwards.
        timeout_s: how long a host may be silent.
        progress: whether to show a bar; on a terminal only.

    Returns:
        The host that sent it.

    Raises:
        TransferFailed: if the host does not deliver it.
        UserError: if the disk is full or cannot be written.
    """
    most, tries = part.size(), _TRIES
    with requests.Session() as session:
        session.headers.update(
            {'User-Agent': f'gn_det/{__version__}', 'Accept-Encoding': 'identity'}
        )
        while True:
            try:
                return _try(session, url, part, has_digest, timeout_s, progress)
            except _Broken as error:
                tries = _TRIES if part.size() > most else tries - 1
                most = max(most, part.size())
                if not tries:
                    raise TransferFailed(str(error)) from error
            except requests.RequestException as error:
                raise _failure(error, timeout_s) from error
            time.sleep(_PAUSE_S)


def _try(
    session: requests.Session,
    url: str,
    part: Part,
    has_digest: bool,
    timeout_s: float,
    progress: bool,
) -> str:
    headers = {}
    known = part.version_from(url)
    if offset := part.size():
        # With a digest no mark has to tell whether the bytes belong together.
        if known and not has_digest:
            headers['If-Range'] = known.mark
        if known or has_digest:
            headers['Range'] = f'bytes={offset}-'
    with _ask(session, url, headers, timeout_s) as response:
        if headers and response.status_code == 416:
            part.discard()
            raise _Broken(f'has less than the {offset} bytes already here')
        _check(response, url, has_digest)
        if response.status_code == 206:
            offset, total = _range(response, part, offset, known, has_digest)
        else:
            offset, total = 0, _length(response, has_digest)
        if total is not None:
            part.check_space(total)
        if not offset:
            part.start_again(url, _mark(response), total)
        with tqdm(
            total=total,
            initial=offset,
            unit='B',
            unit_scale=True,
            desc=host_of(response.url),
            disable=not (progress and sys.stderr.isatty()),
        ) as bar:
            _receive(response, part, bar, timeout_s)
        if total is not None and part.size() != total:
            if part.size() > total:
                part.discard()
            raise _Broken(f'sent {part.size()} bytes of {total}')
        if not part.size() and not has_digest:
            part.discard()
            raise TransferFailed('sent an empty file')
        return host_of(response.url)


def _ask(
    session: requests.Session, url: str, headers: dict[str, str], timeout_s: float
) -> requests.Response:
    try:
        return session.get(url, headers=headers, stream=True, timeout=timeout_s)
    except requests.RequestException:
        raise
    # requests expects a redirect to name an address.
    except ValueError as error:
        raise TransferFailed('is no usable address, or leads to none') from error


def _check(response: requests.Response, url: str, has_digest: bool) -> None:
    """Refuse an answer that is not the file."""
    if response.status_code not in (200, 206):
        raise TransferFailed(
            f'answered {response.status_code} {response.reason or ""}'.rstrip()
        )
    encoding = response.headers.get('Content-Encoding', 'identity')
    if encoding.lower() != 'identity':
        raise TransferFailed('sent the file compressed, which was not asked for')
    if has_digest:
        return
    # Without a digest to tell, these would pass for the file.
    if response.headers.get('Content-Type', '').lower().startswith('text/html'):
        raise TransferFailed('sent a web page')
    if url.startswith('https:') and response.url.startswith('http:'):
        raise TransferFailed(
            f'led to {host_of(response.url)} without encryption, and no digest is '
            'known to check the file by'
        )


def _range(
    response: requests.Response,
    part: Part,
    offset: int,
    known: Version | None,
    has_digest: bool,
) -> tuple[int, int | None]:
    """Where the bytes of a partial answer belong, and the length of the whole.

    Not every server heeds `If-Range`, so the answer is compared with what is here,
    unless a digest will do that.
    """
    given = response.headers.get('Content-Range', '')
    found = re.fullmatch(r'bytes (\d+)-\d+/(\d+|\*)', given)
    if found is None or int(found[1]) != offset:
        part.discard()
        raise _Broken(f'sent other bytes ({given or "unnamed"}) than asked for')
    total = None if found[2] == '*' else int(found[2])
    if known and not has_digest and not _goes_on(response, total, known):
        part.discard()
        raise _Broken('has another version of the file by now')
    return offset, total


def _goes_on(response: requests.Response, total: int | None, known: Version) -> bool:
    """Whether a partial answer is of the known version, as far as it says."""
    mark = 'ETag' if known.mark.startswith('"') else 'Last-Modified'
    # An answer to `If-Range` need not repeat the date.
    given = response.headers.get(mark, known.mark)
    # Servers that compress on the way call the ETag of the same version weak.
    same_mark = given.removeprefix('W/') == known.mark
    return same_mark and (None in (total, known.total) or total == known.total)


def _length(response: requests.Response, has_digest: bool) -> int | None:
    length = response.headers.get('Content-Length')
    if length is not None and length.isdigit():
        return int(length)
    if has_digest or response.headers.get('Transfer-Encoding') == 'chunked':
        return None
    raise TransferFailed('does not say how long the file is, and no digest is known')


def _mark(response: requests.Response) -> str | None:
    """What `If-Range` may hold later: a strong ETag, else the date."""
    etag = response.headers.get('ETag', '')
    return etag if etag.startswith('"') else response.headers.get('Last-Modified')


def _receive(
    response: requests.Response, part: Part, bar: tqdm, timeout_s: float
) -> None:
    def blocks() -> Iterator[bytes]:
        for block in response.iter_content(_BLOCK_BYTES):
            yield block
            bar.update(len(block))

    try:
        part.append(blocks())
    except requests.ConnectionError as error:
        if 'timed out' in str(error):
            raise _Broken(f'was silent for {timeout_s:g} s') from error
        raise _Broken(f'broke off after {part.size()} bytes') from error
    except requests.exceptions.ChunkedEncodingError as error:
        raise _Broken(f'broke off after {part.size()} bytes') from error


def _failure(error: requests.RequestException, timeout_s: float) -> TransferFailed:
    """Why a host does not answer, in words."""
    text = str(error)
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
    return TransferFailed(f'is no usable address ({type(error).__name__})')

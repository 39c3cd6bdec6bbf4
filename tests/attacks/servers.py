"""Hosts that answer a download with anything but the file.

`python -m tests.attacks.servers` tries them all. Each is asked first and a good mirror
second. An attack is survived if the mirror's file arrives in time, or the download ends
in one line; nothing else may be left behind.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from gn_det.workbench.errors import UserError
from gn_det.workbench.zoo import transfer
from gn_det.workbench.zoo.download import download
from tests.workbench.zoo.server import hashed_name, serve

CONTENT = os.urandom(200_000)
NAME = hashed_name(CONTENT)
TIMEOUT_S = 1.0
# Three silent tries, their pauses, the good host, and a machine that is busy.
MOST_S = 8 * TIMEOUT_S
OK = b'HTTP/1.1 200 OK\r\n'
PART = b'HTTP/1.1 206 Partial Content\r\n'
SIZE = str(len(CONTENT)).encode()


def head(*lines: bytes, status: bytes = OK) -> bytes:
    return status + b''.join(line + b'\r\n' for line in lines) + b'\r\n'


def whole(length: bytes) -> bytes:
    return head(b'Content-Length: ' + length) + CONTENT


def chunked(*chunks: bytes) -> bytes:
    return head(b'Transfer-Encoding: chunked') + b''.join(chunks)


def dripping(text: bytes) -> Iterator[bytes]:
    for byte in itertools.chain(text, itertools.repeat(0)):
        yield bytes([byte])
        time.sleep(TIMEOUT_S / 5)


def endless(start: bytes, block: bytes) -> Iterator[bytes]:
    yield start
    yield from itertools.repeat(block)


def silent(*start: bytes) -> Iterator[bytes]:
    yield from start
    time.sleep(30)


LENGTHS = (
    b'-1', b'-200000', b'+200000', b'0x30d40', b'2e5', b'200000.0', b'two', b'', b' ',
    b'99999999999999999999999', b'9223372036854775807', b'1099511627776', b'1',
    b'199999', b'200001', b'200000, 1', b'200000;', b'\xb2', b'2_00_000', b'0',
)  # fmt: skip
RANGES = (
    b'bytes 0-199999/200000', b'bytes 1-199999/200000', b'bytes -1-5/9',
    b'bytes 0-9/*', b'bytes */200000', b'items 0-1/2', b'', b'bytes 0-x/y',
    b'bytes 0-99999999999999999999999/99999999999999999999999',
)  # fmt: skip
ANSWERS = {
    **{f'length {length!r}': whole(length) for length in LENGTHS},
    **{
        f'unasked part {given!r}': head(
            b'Content-Range: ' + given, b'Content-Length: ' + SIZE, status=PART
        )
        + CONTENT
        for given in RANGES
    },
    **{
        f'status {status}': head(
            b'Content-Length: 0', status=b'HTTP/1.1 %d No\r\n' % status
        )
        for status in (199, 204, 205, 304, 403, 404, 416, 429, 500, 503, 999)
    },
    **{
        f'chunk {size[:20]!r}': chunked(size + b'\r\n', CONTENT)
        for size in (
            b'-5', b'xyz', b'', b'fffffffffffffffff', b'0', b'5;' + b'a' * 70_000,
        )
    },
    **{
        f'redirect to {where!r}': head(
            b'Location: ' + where, b'Content-Length: 0',
            status=b'HTTP/1.1 302 Found\r\n',
        )
        for where in (
            b'file:///etc/passwd', b'ftp://127.0.0.1/x', b'http://[bad/', b'//', b'',
            b'/' + NAME.encode(),
        )
    },
    'nothing': b'',
    'no http': b'SSH-2.0-OpenSSH_9.6\r\n',
    'bad status line': b'HTTP/1.1 abc\r\n\r\n',
    'other version': b'HTTP/9.9 200 OK\r\nContent-Length: 3\r\n\r\nabc',
    'wrong bytes': head(b'Content-Length: ' + SIZE) + os.urandom(len(CONTENT)),
    'compressed': head(b'Content-Encoding: gzip', b'Content-Length: 3') + b'abc',
    'head of a thousand lines': head(*(b'X-%d: y' % n for n in range(1000))),
    'line without end': OK + b'X-A: ' + b'a' * 200_000,
    'two lengths': head(b'Content-Length: ' + SIZE, b'Content-Length: 1') + CONTENT,
    'length and chunks': head(b'Content-Length: 5', b'Transfer-Encoding: chunked')
    + b'3\r\nabc\r\n0\r\n\r\n',
    'body dripped': dripping(head(b'Content-Length: ' + SIZE)),
    'head dripped': dripping(OK + b'X-A: ' + b'a' * 10_000),
    'silent': silent(),
    'silent after the head': silent(head(b'Content-Length: ' + SIZE)),
    'silent in the body': silent(head(b'Content-Length: ' + SIZE), CONTENT[:50_000]),
    'body without end': endless(head(b'Connection: close'), b'a' * 65536),
    'chunks without end': endless(
        head(b'Transfer-Encoding: chunked'), b'ffff\r\n' + b'a' * 65535 + b'\r\n'
    ),
    'head without end': endless(OK, b'X-A: y\r\n'),
    'continue without end': endless(b'', b'HTTP/1.1 100 Continue\r\n\r\n'),
}  # fmt: skip


@contextlib.contextmanager
def answering(answer: bytes | Iterator[bytes]) -> Iterator[str]:
    """A host that says this, whatever it is asked; its address."""
    listener = socket.create_server(('127.0.0.1', 0))

    def serve_one(connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection:
            connection.recv(65536)
            for block in [answer] if isinstance(answer, bytes) else answer:
                connection.sendall(block)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(
                    target=serve_one, args=(connection,), daemon=True
                ).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f'http://127.0.0.1:{listener.getsockname()[1]}'
    finally:
        listener.close()


def attack(answer: bytes | Iterator[bytes], cache: Path, good: str) -> str:
    """What becomes of a download whose first host answers so."""
    began = time.monotonic()
    with answering(answer) as bad:
        try:
            path = download(
                f'{good}/{NAME}',
                cache,
                mirrors=[f'{good}/={bad}/'],
                progress=False,
                timeout_s=TIMEOUT_S,
            )
        except UserError as error:
            return 'one line' if '\n' not in str(error) else f'LINES {error}'
        except Exception as error:
            return f'TRACE {error!r}'
    if path.read_bytes() != CONTENT:
        return 'WRONG FILE'
    if left := {entry.name for entry in cache.iterdir()} - {NAME}:
        return f'LEFT {left}'
    took = time.monotonic() - began
    return 'next host' if took < MOST_S else f'SLOW {took:.1f} s'


def run(names: list[str]) -> dict[str, str]:
    """The outcome of each attack; what is not survived is in capitals."""
    # An endless body is stopped at the size that weights may have; a test's are small.
    transfer.MOST_BYTES = 10 * len(CONTENT)
    outcomes = {}
    with serve() as server, tempfile.TemporaryDirectory() as folder:
        server.add(f'/{NAME}', CONTENT)
        for n, name in enumerate(names):
            cache = Path(folder, str(n))
            outcomes[name] = attack(ANSWERS[name], cache, server.address)
    return outcomes


def main() -> None:
    outcomes = run(list(ANSWERS))
    for name, outcome in outcomes.items():
        print(f'{outcome:12} {name}')
    survived = sum(
        outcome in ('next host', 'one line') for outcome in outcomes.values()
    )
    print(f'{len(outcomes)} tried, {survived} survived')
    sys.exit(survived != len(outcomes))


if __name__ == '__main__':
    main()

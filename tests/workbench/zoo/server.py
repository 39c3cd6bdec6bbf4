"""An HTTP(S) server on the loopback address that misbehaves on request.

`Server.add(path, content, *faults)` says what a path answers. Every request is noted.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import ipaddress
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

_BLOCK_BYTES = 2**14


@dataclass
class Answer:
    """What one path answers.

    `drops`: how many answers break off after `drop_after` bytes (-1: all).
    `stalls`: likewise, but the connection stays open and silent.
    `pause_s`: between blocks, to give a test time to kill the client.
    """

    content: bytes = b''
    status: int = 200
    location: str | None = None
    ranges: bool = True
    content_type: str = 'application/octet-stream'
    content_encoding: str | None = None
    send_length: bool = True
    drops: int = 0
    stalls: int = 0
    drop_after: int = 0
    pause_s: float = 0.0
    shift: int = 0
    """Bytes by which a range starts elsewhere than asked for."""
    excess: int = 0
    """Bytes by which a range calls the whole longer than it is."""


@dataclass
class Request:
    """One request as it came."""

    path: str
    headers: dict[str, str]


@dataclass
class Server:
    """A running server: its address, its answers, the requests it has had."""

    address: str
    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def add(self, path: str, content: bytes = b'', **faults) -> str:
        """Let a path answer with content; returns its address."""
        self.answers[path] = Answer(content, **faults)
        return self.address + path

    def count(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(request.path == path for request in self.requests)

    @property
    def host(self) -> str:
        """Host and port, as messages name it."""
        return urlsplit(self.address).netloc


class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    state: Server

    def do_GET(self) -> None:
        # A client of a proxy names the whole address.
        path = urlsplit(self.path).path
        self.state.requests.append(Request(self.path, dict(self.headers)))
        answer = self.state.answers.get(path, Answer(b'no such file', status=404))
        start = self._start(answer)
        if start:
            start += answer.shift
        if start is None:
            self.send_response(416)
            self.send_header('Content-Range', f'bytes */{len(answer.content)}')
            self.send_header('Content-Length', '0')
            self.end_headers()
            return
        self._send_head(answer, start)
        with contextlib.suppress(OSError):
            self._send_body(answer, start)

    def _start(self, answer: Answer) -> int | None:
        """The first byte to send; None where a range starts past the end."""
        given = self.headers.get('Range')
        if not given or not answer.ranges or answer.status != 200:
            return 0
        start = int(given.removeprefix('bytes=').removesuffix('-'))
        return start if start < len(answer.content) else None

    def _send_head(self, answer: Answer, start: int) -> None:
        whole = len(answer.content)
        partial = answer.status == 200 and start > 0
        self.send_response(206 if partial else answer.status)
        if partial:
            given = f'bytes {start}-{whole - 1}/{whole + answer.excess}'
            self.send_header('Content-Range', given)
        if answer.location is not None:
            self.send_header('Location', answer.location)
        if answer.content_encoding is not None:
            self.send_header('Content-Encoding', answer.content_encoding)
        self.send_header('Content-Type', answer.content_type)
        if answer.send_length:
            self.send_header('Content-Length', str(whole - start))
        else:
            self.send_header('Connection', 'close')
        self.end_headers()

    def _send_body(self, answer: Answer, start: int) -> None:
        end = len(answer.content)
        stalls = answer.stalls
        if answer.drops or stalls:
            end = min(end, start + answer.drop_after)
        for first in range(start, end, _BLOCK_BYTES):
            self.wfile.write(answer.content[first : min(first + _BLOCK_BYTES, end)])
            time.sleep(answer.pause_s)
        if stalls:
            answer.stalls -= 1
            self.state.released.wait(20)
        elif answer.drops:
            answer.drops -= 1
        else:
            return
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serve(certificate: tuple[Path, Path] | None = None) -> Iterator[Server]:
    """A server on a free port, with TLS where a certificate and its key are given."""
    handler = type('Handler', (_Handler,), {})
    http = ThreadingHTTPServer(('127.0.0.1', 0), handler)
    scheme = 'http'
    if certificate is not None:
        scheme = 'https'
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        http.socket = context.wrap_socket(http.socket, server_side=True)
        # A client that turns the certificate down is no error of the server.
        http.handle_error = lambda *_: None
    state = Server(f'{scheme}://127.0.0.1:{http.server_port}')
    handler.state = state
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.released.set()
        http.shutdown()
        http.server_close()


def make_certificate(folder: Path, *, days: int) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 that ends in `days`, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, '127.0.0.1')])
    now = datetime.datetime.now(datetime.timezone.utc)
    address = x509.IPAddress(ipaddress.ip_address('127.0.0.1'))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=400))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / 'key.pem').write_bytes(private)
    (folder / 'certificate.pem').write_bytes(certificate.public_bytes(pem))
    return folder / 'certificate.pem', folder / 'key.pem'


def hashed_name(content: bytes, stem: str = 'model', suffix: str = '.pth') -> str:
    """A file name with the first digits of the content's sha256."""
    return f'{stem}-{hashlib.sha256(content).hexdigest()[:8]}{suffix}'

"""A STOW-RS server for answers that others do not give, on loopback."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import ClassVar

from pydicom import dcmread

from tests.certificates import Credential

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Asked:
    """A request, as it came."""

    method: str
    path: str
    headers: Message
    files: tuple[bytes, ...]

    @property
    def instances(self) -> list[str]:
        return [_uid(file) for file in self.files]


@dataclass(frozen=True)
class Said:
    """An answer."""

    status: int
    content: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    before_body: bool = False
    """Whether it is given before the body is read, and the connection is closed."""


def stored(
    asked: Asked, failed: dict[str, int] | None = None, status: int = 200
) -> Said:
    """What a server says that has stored all instances, but those that have failed."""
    failures = failed or {}
    good = [_item(uid) for uid in asked.instances if uid not in failures]
    bad = [_item(uid, why) for uid, why in failures.items()]
    answer = {"00081199": {"vr": "SQ", "Value": good}}
    if bad:
        answer["00081198"] = {"vr": "SQ", "Value": bad}
    return Said(status, json.dumps(answer).encode("ascii"))


@dataclass
class StowServer:
    """One that runs: what it answers is up to the test."""

    port: int
    scheme: str
    answer: Callable[[Asked], Said] = stored
    asked: list[Asked] = field(default_factory=list)
    keeps: bool = True
    """Whether it looks at what is in a request, or reads it and forgets it."""
    read: int = 0
    """Bytes of bodies."""

    @property
    def url(self) -> str:
        return f"{self.scheme}://{LOOPBACK}:{self.port}/dicom-web"

    def posted(self) -> list[list[str]]:
        """The instances of each request."""
        return [one.instances for one in self.asked if one.method == "POST"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stow: ClassVar[StowServer]

    def do_POST(self) -> None:
        said = self.stow.answer(Asked("POST", self.path, self.headers, ()))
        self._answer("POST", () if said.before_body else self._files())

    def do_OPTIONS(self) -> None:
        self._answer("OPTIONS", ())

    def do_GET(self) -> None:
        self._answer("GET", ())

    def _files(self) -> tuple[bytes, ...]:
        left, content = int(self.headers["Content-Length"]), b""
        while left and (piece := self.rfile.read(min(left, 1 << 20))):
            left -= len(piece)
            self.stow.read += len(piece)
            content += piece if self.stow.keeps else b""
        boundary = str(self.headers.get_param("boundary")).encode("ascii")
        return tuple(
            part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
            for part in content.split(b"--" + boundary)[1:-1]
        )

    def _answer(self, method: str, files: tuple[bytes, ...]) -> None:
        asked = Asked(method, self.path, self.headers, files)
        self.stow.asked.append(asked)
        said = self.stow.answer(asked)
        self.send_response(said.status)
        for name, value in said.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(said.content)))
        if said.before_body:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(said.content)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass  # who was turned away at the handshake


@contextmanager
def a_stow_server(
    credential: Credential | None = None, client_ca: Path | None = None
) -> Iterator[StowServer]:
    """Run one until the end of the block; over TLS if it has a certificate."""

    class Handler(_Handler):
        pass

    with _Server((LOOPBACK, 0), Handler) as listening:
        if credential is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(credential.file, credential.key_file)
            if client_ca is not None:
                context.load_verify_locations(client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
            listening.socket = context.wrap_socket(
                listening.socket, server_side=True, do_handshake_on_connect=False
            )
        scheme = "http" if credential is None else "https"
        Handler.stow = server = StowServer(listening.server_address[1], scheme)
        thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()


def _item(uid: str, why: int | None = None) -> dict[str, object]:
    item: dict[str, object] = {"00081155": {"vr": "UI", "Value": [uid]}}
    if why is not None:
        item["00081197"] = {"vr": "US", "Value": [why]}
    return item


def _uid(file: bytes) -> str:
    return str(dcmread(BytesIO(file), stop_before_pixels=True).SOPInstanceUID)

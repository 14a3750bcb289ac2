"""A server that takes syslog over TLS (RFC 5425), on loopback."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.certificates import Credential

LINE = re.compile(
    rb"<(\d+)>1 (\S+) (\S+) miadmark (\S+) DICOM\+RFC3881 - (<AuditMessage.*)",
    re.DOTALL,
)


@dataclass
class Repository:
    """What a server has got."""

    port: int
    messages: list[bytes] = field(default_factory=list)
    """Whole lines, as they were framed."""
    peers: list[dict[str, object]] = field(default_factory=list)
    """The certificates that clients have shown."""

    def xml(self) -> list[bytes]:
        found = [LINE.fullmatch(one) for one in self.messages]
        assert all(found)
        return [one.group(5) for one in found if one is not None]


def _messages(connection: ssl.SSLSocket) -> Iterator[bytes]:
    with connection.makefile("rb") as stream:
        while True:
            length = b""
            while (byte := stream.read(1)) != b" ":
                if not byte:
                    return
                assert byte.isdigit()
                length += byte
            text = stream.read(int(length))
            if len(text) < int(length):
                return
            yield text


@contextmanager
def repository(
    own: Credential, client_ca: Credential, port: int = 0
) -> Iterator[Repository]:
    """Take messages from whoever shows a certificate of that authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.file, own.key_file)
    context.load_verify_locations(client_ca.file)
    context.verify_mode = ssl.CERT_REQUIRED
    listening = socket.create_server(("127.0.0.1", port))
    made = Repository(listening.getsockname()[1])
    is_over = threading.Event()
    open_ones: list[ssl.SSLSocket] = []

    def serve() -> None:
        while not is_over.is_set():
            with suppress(OSError):
                plain, _ = listening.accept()
                threading.Thread(target=have, args=(plain,), daemon=True).start()

    def have(plain: socket.socket) -> None:
        with suppress(OSError, ValueError), context.wrap_socket(plain, True) as one:
            open_ones.append(one)
            made.peers.append(dict(one.getpeercert() or {}))
            made.messages.extend(_messages(one))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        is_over.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        for one in open_ones:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        thread.join(5)

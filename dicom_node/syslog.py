"""Syslog over TLS: messages, and the server that takes them.

The protocol has no answer: what was written to a connection that then breaks may have
arrived, or not. So a message counts as delivered once the server's own TCP has
acknowledged every byte of it, and is sent again if that is not known.

Source:
    RFC 5424 (messages), RFC 5425 (TLS, octet counting), PS3.15 A.6 (facility 10, severity
    5 or 4, MSGID ``DICOM+RFC3881``).
"""

from __future__ import annotations

import fcntl
import select
import socket
import ssl
import struct
import termios
import time
from typing import TYPE_CHECKING, Final, Self

from dicom_node.errors import ConfigError, NodeError

if TYPE_CHECKING:
    from dicom_node.auditing import Auditing

MSGID: Final = "DICOM+RFC3881"
_FACILITY: Final = 10
"""Security and authorisation."""
_NOTICE: Final = 5
_WARNING: Final = 4
_TIMEOUT_S: Final = 10.0
_VERDICT_S: Final = 1.0
_LOOK_S: Final = 0.005


class SyslogError(NodeError):
    """Passing: the server does not take messages now."""


def line(
    message: bytes, *, at: str, host: str, process: str, is_warning: bool = False
) -> bytes:
    """Return a message as syslog has it.

    Args:
        message: ASCII.
        at: When it happened, as RFC 3339 has it.
        host: Who reports.
        process: Which process there; a name or a number.
        is_warning: Whether it is worse than a notice.
    """
    severity = _WARNING if is_warning else _NOTICE
    head = f"<{8 * _FACILITY + severity}>1 {at} {_word(host, 255)} miadmark"
    return f"{head} {_word(process, 128)} {MSGID} - ".encode("ascii") + message


def framed(text: bytes) -> bytes:
    """Return a message with its length before it (RFC 5425, 4.3)."""
    return b"%d %b" % (len(text), text)


def _word(text: str, longest: int) -> str:
    return "".join(c for c in text if "!" <= c <= "~")[:longest] or "-"


class SyslogServer:
    """A connection to a server, made when it is needed."""

    def __init__(self, wanted: Auditing) -> None:
        """Read the certificates; nothing is connected yet.

        Raises:
            ConfigError: They cannot be used.
        """
        self._place = wanted.place
        self._hostname = wanted.hostname or self._place[0]
        self._context = _context(wanted)
        self._connection: ssl.SSLSocket | None = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection; the next message makes another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def deliver(self, texts: list[bytes]) -> None:
        """Send messages; the server's machine has them all when this returns.

        Raises:
            SyslogError: It is not known whether it has. Send them again.
        """
        try:
            connection = self._connected()
            connection.sendall(b"".join(map(framed, texts)))
            _await_acknowledgement(connection)
        except OSError as error:
            self.close()
            host, port = self._place
            raise SyslogError(
                f"the syslog server {host}:{port} takes nothing: {_reason(error)}",
                hint="What is to be sent waits, and nothing else does.",
            ) from error

    def _connected(self) -> ssl.SSLSocket:
        """Return a connection that the other side has not closed."""
        if self._connection is not None and _has_ended(self._connection):
            self.close()
        if self._connection is None:
            plain = socket.create_connection(self._place, timeout=_TIMEOUT_S)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                made = self._context.wrap_socket(plain, server_hostname=self._hostname)
            except OSError:
                plain.close()
                raise
            self._connection = made
            _await_verdict(made)
        return self._connection


def _context(wanted: Auditing) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        assert wanted.ca is not None  # or there were no server
        context.load_verify_locations(wanted.ca)
        if wanted.certificate is not None:
            context.load_cert_chain(wanted.certificate, wanted.key, lambda: b"")
    except OSError as error:
        raise ConfigError(
            f"audit: the certificates cannot be used: {error}",
            hint="ca, certificate and key are files in PEM; the key is not encrypted.",
        ) from error
    return context


def _has_ended(connection: ssl.SSLSocket) -> bool:
    """Say whether the other side has closed; it has nothing else to say."""
    connection.settimeout(0)
    try:
        while select.select([connection], [], [], 0)[0] or connection.pending():
            if not connection.recv(4096):
                return True
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(_TIMEOUT_S)
    return False


def _await_verdict(connection: ssl.SSLSocket) -> None:
    """Return once the server has had time to object to our certificate.

    In TLS 1.3 it does so after the handshake has ended on this side: what is sent
    meanwhile is received by its machine, and thrown away.

    Raises:
        OSError: It objects.
    """
    if connection.version() != "TLSv1.3":
        return
    # Most say something in any case: they send a ticket for a later session.
    select.select([connection], [], [], _VERDICT_S)
    if _has_ended(connection):
        raise ConnectionError("it does not take this node's certificate, or hung up")


def _await_acknowledgement(connection: ssl.SSLSocket) -> None:
    end = time.monotonic() + _TIMEOUT_S
    while _unacknowledged(connection):
        if time.monotonic() > end:
            raise TimeoutError("no acknowledgement")
        time.sleep(_LOOK_S)
    if _has_ended(connection):
        raise ConnectionError("it has closed the connection")


def _unacknowledged(connection: ssl.SSLSocket) -> int:
    """Return how many bytes the other side's TCP has not acknowledged."""
    answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
    (count,) = struct.unpack("i", answer)
    return int(count)


def _reason(error: OSError) -> str:
    return str(getattr(error, "verify_message", "") or error.strerror or error)

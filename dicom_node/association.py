"""An association that this node has asked for, once it is agreed on: store, release.

Everything goes over the socket as it is, and whoever asked waits for the answer in the
thread that he asked in. pynetdicom's own requestor has two threads that look for work a
thousand times a second, and passes every fragment through both; that cost more than
sending.

Nothing here knows what is stored, or judges what is answered; how an association comes to
be is :mod:`dicom_node.negotiation`.
"""

from __future__ import annotations

import ssl
import struct
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from dicom_node.dimse import (
    COMMAND,
    ECHO_RESPONSE,
    LAST,
    P_DATA,
    STORE_RESPONSE,
    ResponseError,
    echo_request,
    pdu_header,
    read_response,
    store_request,
    values,
)
from dicom_node.fragments import Fragments

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping

    from dicom_node.file_meta import Head
    from dicom_node.mapped import Source
    from dicom_node.throttle import Throttle

    Kind = tuple[str, str]
    """SOP class and transfer syntax."""

VERIFICATION: Final = "1.2.840.10008.1.1"
"""SOP class of an echo (PS3.4 A.4)."""

_RELEASE_RQ: Final = 0x05
_RELEASE_RP: Final = 0x06
_ABORT: Final = 0x07

_RELEASED: Final = struct.pack(">BBLL", _RELEASE_RP, 0, 4, 0)

_LONGEST: Final = 1 << 20
"""Bytes of a PDU that is read: an acceptance, or an answer."""
_RELEASING_S: Final = 5.0
"""How long the peer is given to say goodbye."""


class AssociationError(Exception):
    """There is no association, or not any more; the message says why."""


class Association:
    """One connection, negotiated. One thread at a time."""

    def __init__(
        self,
        connection: socket.socket,
        contexts: Mapping[Kind, int],
        largest: int,
        timeout_s: float,
        throttle: Throttle | None = None,
    ) -> None:
        """Take over an association that was just accepted.

        Args:
            connection: Over which.
            contexts: Accepted presentation contexts.
            largest: Bytes of a PDU that the peer takes, 8 or more; 0 for any.
            timeout_s: For each message.
            throttle: Holds it to a speed.
        """
        self.contexts = contexts
        self._connection: socket.socket | None = connection
        self._timeout_s, self._message = timeout_s, 0
        self._fragments = Fragments(largest, throttle)

    @property
    def is_established(self) -> bool:
        """Return whether it is open, as far as the peer has said by now.

        Between two requests a peer says nothing, unless that it leaves.
        """
        connection = self._connection
        if connection is None:
            return False
        connection.settimeout(0)
        try:
            said = connection.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            said = b""
        if said == bytes([_RELEASE_RQ]):
            with suppress(OSError):
                self._send(_RELEASED)
            self._close()
        self.abort()
        return False

    def certificate(self) -> bytes | None:
        """Return the certificate that the peer has shown, DER; None without TLS.

        Raises:
            AssociationError: It has gone.
        """
        connection = self._open()
        if not isinstance(connection, ssl.SSLSocket):
            return None
        return connection.getpeercert(binary_form=True) or b""

    def store(self, file: Source, head: Head) -> int:
        """Send a file as it lies there, and return the status that is answered.

        Args:
            file: What to send. Its SOP class and transfer syntax are among
                :attr:`contexts`.
            head: Of that file.

        Raises:
            AssociationError: It broke, or nothing was answered in time; the peer may
                have the instance or not.
            OSError: The file cannot be read.
        """
        context = self.contexts[head.sop_class_uid, head.transfer_syntax_uid]
        self._message = self._message % 0xFFFF + 1
        command = store_request(
            self._message, head.sop_class_uid, head.sop_instance_uid
        )
        with file.open("rb") as stream:
            size = stream.seek(0, 2) - head.size
            stream.seek(head.size)
            with self._broken_if_it_fails():
                self._send(pdu_header(context, COMMAND | LAST, len(command)), command)
                for piece in self._fragments.of(context, stream, size):
                    self._send(piece)
                return self._answered()

    def echo(self) -> int:
        """Ask whether the peer is there, and return the status that is answered.

        Raises:
            AssociationError: It broke, or nothing was answered in time.
        """
        context = next(
            number
            for (kind, _), number in self.contexts.items()
            if kind == VERIFICATION
        )
        self._message = self._message % 0xFFFF + 1
        command = echo_request(self._message)
        with self._broken_if_it_fails():
            self._send(pdu_header(context, COMMAND | LAST, len(command)), command)
            return self._answered(ECHO_RESPONSE)

    def release(self) -> None:
        """Say goodbye and close; nothing is wrong if nobody is there any more."""
        with suppress(AssociationError), self._broken_if_it_fails():
            self._send(struct.pack(">BBLL", _RELEASE_RQ, 0, 4, 0))
            deadline = time.monotonic() + min(self._timeout_s, _RELEASING_S)
            while self._read_pdu(deadline)[0] != _RELEASE_RP:
                pass
        self._close()

    def abort(self) -> None:
        """Close at once."""
        with suppress(OSError):
            if self._connection is not None:
                self._connection.settimeout(0)
                self._send(struct.pack(">BBLBBBB", _ABORT, 0, 4, 0, 0, 0, 0))
        self._close()

    def _open(self) -> socket.socket:
        if self._connection is None:
            raise AssociationError("it is closed")
        return self._connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @contextmanager
    def _broken_if_it_fails(self) -> Iterator[None]:
        """Abort on anything that goes wrong: what comes next would not be understood."""
        try:
            self._open().settimeout(self._timeout_s)
            yield
        except BaseException as error:
            self.abort()
            if isinstance(error, TimeoutError):
                raise AssociationError("nothing more in time") from error
            if isinstance(error, (OSError, ResponseError)):
                raise AssociationError(str(error)) from error
            raise

    def _send(self, *parts: bytes | memoryview) -> None:
        self._open().sendall(parts[0] if len(parts) == 1 else b"".join(parts))

    def _answered(self, kind_of_answer: int = STORE_RESPONSE) -> int:
        """Return the status in the next message."""
        deadline, command = time.monotonic() + self._timeout_s, b""
        while True:
            kind, content = self._read_pdu(deadline)
            if kind != P_DATA:
                raise AssociationError(f"the peer sent a PDU of type {kind:#04x}")
            for value in values(content):
                command += value.fragment if value.is_command else b""
                if len(command) > _LONGEST:
                    raise AssociationError("the peer's answer does not end")
                if not value.is_command or not value.is_last:
                    continue
                response = read_response(command, kind_of_answer)
                if response.message != self._message:
                    raise AssociationError("the peer answered another request")
                return response.status

    def _read_pdu(self, deadline: float) -> tuple[int, bytes]:
        kind, content = read_pdu(self._open(), deadline)
        if kind == _ABORT:
            raise AssociationError("the peer aborted it")
        if kind == _RELEASE_RQ:
            self._send(_RELEASED)
            raise AssociationError("the peer released it")
        return kind, content


def read_pdu(connection: socket.socket, deadline: float) -> tuple[int, bytes]:
    """Return the type of the next PDU, and what is in it.

    Args:
        connection: Where it comes from.
        deadline: Until when, by :func:`time.monotonic`.

    Raises:
        AssociationError: It is too long, or the peer has closed.
        OSError: It did not come in time, or the peer is gone.
    """
    kind, length = struct.unpack(">BxL", _read(connection, 6, deadline))
    if length > _LONGEST:
        raise AssociationError(f"the peer sent a PDU of {length} bytes")
    return kind, _read(connection, length, deadline)


def _read(connection: socket.socket, size: int, deadline: float) -> bytes:
    buffer = memoryview(bytearray(size))
    done = 0
    while done < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        count = connection.recv_into(buffer[done:])
        if not count:
            raise AssociationError("the peer closed the connection")
        done += count
    return bytes(buffer)

"""An association that this node has asked for: negotiate, store, release.

pynetdicom writes and reads what is negotiated. What comes after goes over the socket as
it is: a file is read into one buffer and sent from there, and whoever asked waits for
the answer in the thread that he asked in. pynetdicom's own requestor has two threads that
look for work a thousand times a second, and passes every fragment through both; that cost
more than sending.

Nothing here knows what is stored, or judges what is answered.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from pynetdicom import (
    PYNETDICOM_IMPLEMENTATION_UID,
    PYNETDICOM_IMPLEMENTATION_VERSION,
    pdu,
    pdu_primitives,
)
from pynetdicom.presentation import build_context

from dicom_node.dimse import (
    COMMAND,
    ECHO_RESPONSE,
    LAST,
    P_DATA,
    PDV_HEADER,
    STORE_RESPONSE,
    ResponseError,
    echo_request,
    pdu_header,
    read_response,
    store_request,
    values,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dicom_node.mapped import Readable, Source
    from dicom_node.part10 import Head
    from dicom_node.throttle import Throttle

    Kind = tuple[str, str]
    """SOP class and transfer syntax."""

_APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
"""DICOM's own (PS3.7 A.2.1)."""

VERIFICATION: Final = "1.2.840.10008.1.1"
"""SOP class of an echo (PS3.4 A.4)."""

_ASSOCIATE_AC: Final = 0x02
_ASSOCIATE_RJ: Final = 0x03
_RELEASE_RQ: Final = 0x05
_RELEASE_RP: Final = 0x06
_ABORT: Final = 0x07

_RELEASED: Final = struct.pack(">BBLL", _RELEASE_RP, 0, 4, 0)

_LONGEST: Final = 1 << 20
"""Bytes of a PDU that is read here: an acceptance, or an answer."""
_OURS: Final = 16_384
"""Bytes of a PDU that the peer may send; its answers take a hundred."""
_PIECE: Final = 256 * 1024
"""Bytes that are sent at a time, at most."""
_CONNECTING_S: Final = 10.0
"""How long a machine is given to take the connection; that asks no program of it."""
_RELEASING_S: Final = 5.0
"""How long the peer is given to say goodbye."""


class AssociationError(Exception):
    """There is no association, or not any more; the message says why."""


class RejectedError(AssociationError):
    """The peer was reached, and wants none."""


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
            largest: Bytes of a PDU that the peer takes; 0 for any.
            timeout_s: For each message.
            throttle: Holds it to a speed.

        Raises:
            AssociationError: The peer takes no PDU that anything fits into.
        """
        self.contexts = contexts
        self._connection: socket.socket | None = connection
        self._timeout_s, self._message = timeout_s, 0
        # Fragments are of even length (PS3.8 9.3.1).
        piece = _PIECE if throttle is None else min(_PIECE, throttle.piece)
        self._fragment = min(largest - 6 if largest else piece, piece) & ~1
        self._throttle = throttle
        if self._fragment < 2:
            raise AssociationError(f"the peer takes {largest} bytes at a time")
        self._buffer = memoryview(bytearray(PDV_HEADER + self._fragment))

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
                self._send_dataset(context, stream, size)
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

    def _send_dataset(self, context: int, stream: Readable, size: int) -> None:
        is_last = False
        while not is_last:
            count = min(size, self._fragment)
            is_last = count == size
            _fill(stream, self._buffer[PDV_HEADER : PDV_HEADER + count])
            flags = LAST if is_last else 0
            self._buffer[:PDV_HEADER] = pdu_header(context, flags, count)
            if self._throttle is not None:
                self._throttle.wait(count)
            self._send(self._buffer[: PDV_HEADER + count])
            size -= count

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
        kind, content = _read_pdu(self._open(), deadline)
        if kind == _ABORT:
            raise AssociationError("the peer aborted it")
        if kind == _RELEASE_RQ:
            self._send(_RELEASED)
            raise AssociationError("the peer released it")
        return kind, content


def associate(
    host: str,
    port: int,
    *,
    calling: str,
    called: str,
    kinds: Sequence[Kind],
    timeout_s: float,
    tls: tuple[ssl.SSLContext, str] | None,
    throttle: Throttle | None = None,
) -> Association:
    """Return an association; what the peer accepted of it may be nothing.

    Args:
        host: Name or address.
        port: Of the peer.
        calling: AE title of this node.
        called: AE title of the peer.
        kinds: What to propose, each in a presentation context of its own: a context is
            answered with one syntax. 128 at most.
        timeout_s: For the connection, for the answer, and for each message later.
        tls: How, and which name the certificate has to hold; None for none.
        throttle: Holds data sets to a speed.

    Raises:
        AssociationError: The peer cannot be reached, or does not answer as it should.
        RejectedError: It says no.
    """
    connection: socket.socket | None = None
    try:
        connection = socket.create_connection(
            (host, port), min(timeout_s, _CONNECTING_S)
        )
        connection.settimeout(timeout_s)
        # Else the last piece of an object waits for an acknowledgement of the others.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            context, hostname = tls
            connection = context.wrap_socket(connection, server_hostname=hostname)
        connection.sendall(_request(calling, called, kinds))
        contexts, largest = _negotiated(connection, kinds, timeout_s)
        return Association(connection, contexts, largest, timeout_s, throttle)
    except OSError as error:
        if connection is not None:
            connection.close()
        raise AssociationError(type(error).__name__) from error
    except BaseException:
        if connection is not None:
            connection.close()
        raise


def _request(calling: str, called: str, kinds: Sequence[Kind]) -> bytes:
    """Return an A-ASSOCIATE-RQ (PS3.8 9.3.2)."""
    primitive = pdu_primitives.A_ASSOCIATE()
    primitive.application_context_name = _APPLICATION_CONTEXT
    primitive.calling_ae_title, primitive.called_ae_title = calling, called
    contexts = [build_context(*kind) for kind in kinds]
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    primitive.presentation_context_definition_list = contexts
    largest = pdu_primitives.MaximumLengthNotification()
    largest.maximum_length_received = _OURS
    maker = pdu_primitives.ImplementationClassUIDNotification()
    maker.implementation_class_uid = PYNETDICOM_IMPLEMENTATION_UID
    version = pdu_primitives.ImplementationVersionNameNotification()
    version.implementation_version_name = PYNETDICOM_IMPLEMENTATION_VERSION
    primitive.user_information = [largest, maker, version]
    return pdu.A_ASSOCIATE_RQ(primitive).encode()


def _negotiated(
    connection: socket.socket, kinds: Sequence[Kind], timeout_s: float
) -> tuple[dict[Kind, int], int]:
    """Return what the peer answers; see :func:`_accepted`."""
    kind, content = _read_pdu(connection, time.monotonic() + timeout_s)
    if kind == _ASSOCIATE_RJ:
        raise RejectedError("it rejected the association")
    if kind != _ASSOCIATE_AC:
        raise AssociationError(f"it answered with a PDU of type {kind:#04x}")
    return _accepted(content, kinds)


def _accepted(content: bytes, kinds: Sequence[Kind]) -> tuple[dict[Kind, int], int]:
    """Return the contexts that an A-ASSOCIATE-AC accepts, and how long PDUs may be.

    Raises:
        AssociationError: It cannot be read.
    """
    acceptance = pdu.A_ASSOCIATE_AC()
    try:
        acceptance.decode(struct.pack(">BBL", _ASSOCIATE_AC, 0, len(content)) + content)
        proposed = {2 * number + 1: kind for number, kind in enumerate(kinds)}
        contexts = {
            proposed[item.context_id]: item.context_id
            for item in acceptance.presentation_context
            if item.result == 0
            and item.context_id in proposed
            # Of one syntax that was proposed, another cannot have been chosen.
            and item.transfer_syntax == proposed[item.context_id][1]
        }
        information = acceptance.user_information
        largest = information.maximum_length if information else None
    except Exception as error:
        raise AssociationError("its acceptance cannot be read") from error
    return contexts, largest or 0


def _read_pdu(connection: socket.socket, deadline: float) -> tuple[int, bytes]:
    """Return the type of the next PDU, and what is in it."""
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


def _fill(stream: Readable, view: memoryview) -> None:
    """Fill ``view`` from a file."""
    done = 0
    while done < len(view):
        count = stream.readinto(view[done:])
        if not count:
            raise OSError("the file is shorter than it was")
        done += count

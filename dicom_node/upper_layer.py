"""One association's upper layer (PS3.8): pynetdicom's, with limits and without its waits.

pynetdicom buffers as much as a header announces, waits for the rest of it for ever, and
asks a thousand times a second whether there is something to do. Here a header that
announces too much ends the association before a byte of it is read, every PDU and every
message has to be there in time, and threads sleep until there is news. Nothing here
knows who the peer is.
"""

from __future__ import annotations

import logging
import select
import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket

from dicom_node.incoming import IncomingFile
from dicom_node.pdu import (
    HEADER,
    KNOWN,
    CutOffError,
    abort_pdu,
    objection,
    received,
)
from dicom_node.quick_messages import store_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetdicom.association import Association

logger = logging.getLogger(__name__)
Item = TypeVar("Item")

_IN_MEMORY: Final = 1 << 20
"""Bytes that a message may have before it is written to a file: its command set."""
_QUEUED: Final = 4
"""Messages of one peer that wait for an answer; more are not read for now."""
_OPEN: Final = 2 * _QUEUED
"""Files of one peer at once; no peer that waits for answers has so many."""
_OF_COMMAND: Final = 1
"""In a message control header: a piece of a command set (PS3.8 E.2)."""
_PDV_HEAD: Final = 6
"""Bytes before a presentation data value, as pynetdicom counts its maximum."""
_UNANSWERED: Final = "Sta3"
"""The peer has asked for an association and waits (PS3.8 9.2); what it sends meanwhile
is read afterwards."""
_OVER: Final = "Sta13"
"""All has been said, and the connection is to be closed."""
_LAST_WORDS_S: Final = 1.0
_LOOK_S: Final = 0.1
"""How often threads look around although there is no news."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How much may come at once, and how slowly."""

    pdu_s: float
    grace_s: float
    bytes_per_s: int
    max_object: int


class GuardedSocket(AssociationSocket):
    """Reads PDUs whole, within limits, and sleeps until there is something to do."""

    def __init__(
        self, assoc: Association, connection: socket.socket, first: bytes, pace: Pace
    ) -> None:
        """Take over a connection.

        Args:
            assoc: Whose it is.
            connection: Connected, TLS and all.
            first: What has been read from it already.
            pace: Limits.
        """
        self._first, self._pace = bytearray(first), pace
        self._is_header_next, self._deadline = True, 0.0
        self._news, self._bell = socket.socketpair()
        self._news.settimeout(0)
        self._bell.settimeout(0)
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._poll.register(self._news, select.POLLIN)
        super().__init__(assoc, client_socket=connection)

    def wake(self) -> None:
        """Say that there is something to send."""
        with suppress(OSError):  # said often enough, or nobody is there any more
            self._bell.send(b"\0")

    def forget(self) -> None:
        """Close what belongs to the waiting, once both threads are gone."""
        self._news.close()
        self._bell.close()

    @property
    def ready(self) -> bool:
        """Return whether there is something to read, waiting for it a little."""
        connection = self.socket
        if connection is None or not self._is_connected:
            return False
        if not self.event_queue.empty():
            return False  # one thing after another
        if self._first:
            return True
        dul = self.assoc.dul
        is_unanswered = dul.state_machine.current_state == _UNANSWERED
        if is_unanswered or self.assoc.dimse.msg_queue.qsize() >= _QUEUED:
            if dul.to_provider_queue.empty():
                time.sleep(_LOOK_S / 100)
            return False
        if isinstance(connection, ssl.SSLSocket) and connection.pending():
            return True
        happened = dict(self._poll.poll(_LOOK_S * 1000))
        if happened.pop(self._news.fileno(), 0):
            with suppress(OSError):
                self._news.recv(4096)
        return bool(happened)

    def recv(self, nr_bytes: int) -> bytearray:
        """Return ``nr_bytes``, or fewer where the association is at its end."""
        if self._is_header_next:
            is_over = self.assoc.dul.state_machine.current_state == _OVER
            patience = _LAST_WORDS_S if is_over else self._pace.pdu_s
            self._deadline = time.monotonic() + patience
        try:
            content = self._taken(nr_bytes)
            if self._is_header_next and len(content) == HEADER:
                wrong = objection(content)
                if wrong is not None:
                    raise CutOffError(wrong)  # noqa: TRY301 ends as a late one does
                self._is_header_next = content[0] not in KNOWN
            else:
                self._is_header_next = True
        except CutOffError as error:
            logger.warning("cut off %s: %s", named(self.assoc), error)
            self.send(abort_pdu(6))
            self._shutdown_socket()
            return bytearray()
        except OSError:
            return bytearray()
        return content

    def send(self, bytestream: bytes) -> None:
        """Send all of it in time, or end the association."""
        if self.socket is None:
            return
        try:
            self.socket.settimeout(self._pace.pdu_s)
            self.socket.sendall(bytestream)
        except (OSError, ValueError):
            self._shutdown_socket()
            self.event_queue.put("Evt17")  # transport connection closed (PS3.8 9.2)

    def _taken(self, count: int) -> bytearray:
        if self._first:  # it is whole PDUs
            taken = self._first[:count]
            del self._first[:count]
            return taken
        if self.socket is None:
            return bytearray()
        return received(self.socket, count, self._deadline)


class GuardedDimse(DIMSEServiceProvider):
    """Puts messages together, within limits, and knows the files that it makes."""

    def __init__(self, assoc: Association, pace: Pace) -> None:
        """Prepare for one association."""
        super().__init__(assoc)
        self._pace = pace
        self._bytes, self._began = 0, 0.0
        self._files: set[IncomingFile] = set()

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take in a piece of a message; what cannot be one ends the association."""
        try:
            # One by one, or the rest of it could do unseen what _check forbids.
            for value in primitive.presentation_data_value_list:
                self._check(value[1])
                piece = P_DATA()
                piece.presentation_data_value_list.append(value)
                super().receive_primitive(piece)
        except CutOffError as error:
            logger.warning("cut off %s: %s", named(self.assoc), error)
        except Exception as error:  # noqa: BLE001 anything may be wrong with it
            reason = type(error).__name__
            logger.warning("cut off %s: no message: %s", named(self.assoc), reason)
        else:
            return
        self.dul.event_queue.put("Evt19")  # unrecognised or invalid PDU (PS3.8 9.2)

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """Send a message; an ordinary answer to an instance without a detour."""
        # pynetdicom counts from what came last: taking it over was no idleness.
        self.dul._idle_timer.restart()  # noqa: SLF001 no other way to it
        response = store_response(primitive) if type(primitive) is C_STORE else None
        if response is None or 0 < self.maximum_pdu_size < len(response) + _PDV_HEAD:
            super().send_msg(primitive, context_id)
            return
        piece = P_DATA()
        piece.presentation_data_value_list.append((context_id, response))
        self.dul.send_pdu(piece)

    def note(self, message: tuple[object, object]) -> None:
        """Remember the file of a message that is complete.

        Raises:
            CutOffError: Too many are there that nobody has taken over.
        """
        file = getattr(message[1], "_dataset_file", None)
        if isinstance(file, IncomingFile):
            self._files.add(file)
            if len(self._files) > _OPEN:
                self._files = {file for file in self._files if not file.is_closed}
            if len(self._files) > _OPEN:
                raise CutOffError("it sends instances that are no valid requests")

    def discard(self) -> None:
        """Delete the files of messages that nobody has taken over."""
        file = getattr(self.message, "_data_set_file", None)
        if isinstance(file, IncomingFile):
            self._files.add(file)
        for file in self._files:
            file.close()
            Path(file.name).unlink(missing_ok=True)

    def _check(self, value: bytes) -> None:
        message = self.message
        if message is None:
            self._bytes, self._began = 0, time.monotonic()
        elif message.context_id is not None and value[0] & _OF_COMMAND:
            # pynetdicom would begin another file, and forget the first.
            raise CutOffError("a message has two command sets")
        self._bytes += len(value)
        is_in_file = getattr(message, "_data_set_path", None) is not None
        if self._bytes > (self._pace.max_object if is_in_file else _IN_MEMORY):
            raise CutOffError(
                f"a message has more than {self._bytes - len(value)} bytes"
            )
        late = time.monotonic() - self._began - self._pace.grace_s
        if late * self._pace.bytes_per_s > self._bytes:
            raise CutOffError("a message comes too slowly")


class _Bell(Queue[Item]):
    """A queue that tells when something is put in."""

    def __init__(self, ring: Callable[[Item], None]) -> None:
        super().__init__()
        self._ring = ring

    def put(
        self,
        item: Item,
        block: bool = True,  # noqa: FBT001, FBT002 as the class above has it
        timeout: float | None = None,
    ) -> None:
        super().put(item, block, timeout)
        self._ring(item)


class _Checkpoint(threading.Event):
    """What the association's thread passes each time round: it rests here."""

    def __init__(self, is_idle: Callable[[], bool]) -> None:
        super().__init__()
        self._is_idle, self.news = is_idle, threading.Event()

    def set(self) -> None:
        super().set()
        self.news.set()

    def wait(self, timeout: float | None = None) -> bool:
        super().wait(timeout)
        if self._is_idle():
            self.news.wait(_LOOK_S)
        self.news.clear()
        # Who asks the peer something meanwhile wants to read the answer himself.
        return super().wait(timeout)


def install(
    assoc: Association, connection: socket.socket, first: bytes, pace: Pace
) -> Callable[[], None]:
    """Give an association that has not begun its connection, and these limits.

    Returns:
        What is to be called once it has ended: it closes and deletes what is left.
    """
    dul = assoc.dul
    dimse = assoc.dimse = GuardedDimse(assoc, pace)

    def news(message: tuple[Any, Any]) -> None:
        dimse.note(message)
        checkpoint.news.set()

    dimse.msg_queue = _Bell(news)
    dul.to_user_queue = _Bell(lambda _: checkpoint.news.set())
    checkpoint = _Checkpoint(
        lambda: dimse.msg_queue.empty() and dul.to_user_queue.empty()
    )
    checkpoint.set()
    assoc._reactor_checkpoint = checkpoint  # noqa: SLF001 no other way to let it rest
    # It waits in GuardedSocket.ready instead, and is woken there.
    dul._run_loop_delay = 0.0001  # noqa: SLF001 the same
    guarded = GuardedSocket(assoc, connection, first, pace)
    dul.to_provider_queue = _Bell(lambda _: guarded.wake())
    assoc.set_socket(guarded)

    def run() -> None:
        try:
            DULServiceProvider.run(dul)
        except Exception as error:  # noqa: BLE001 one association, not the process
            logger.warning("cut off %s: %s", named(assoc), type(error).__name__)
            guarded.send(abort_pdu(0))
            guarded.close()

    dul.run = run  # type: ignore[method-assign]

    def ended() -> None:
        if dul.ident is not None:  # or its association could not be started
            dul.join(_LAST_WORDS_S)
            dul.kill_dul()
            guarded.wake()
            dul.join(_LAST_WORDS_S)
        guarded.close()
        guarded.forget()
        dimse.discard()

    return ended


def named(assoc: Association) -> str:
    """Return how the log names a peer."""
    address = assoc.requestor.address_info
    host = "?" if address is None else address.address
    return f"from={host} calling={assoc.requestor.ae_title.strip()!a}"

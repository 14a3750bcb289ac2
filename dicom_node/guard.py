"""The sockets: who may speak, how long it may take, and how much of it there may be.

Each connection has a thread of its own from the moment it is accepted, and that thread
does everything that a peer can draw out: the TLS handshake, and reading the association
request. Only a peer that has got so far in time, whom the rules let in and for whom
there is room, meets pynetdicom. Others hear an A-ASSOCIATE-RJ that says why.
"""

from __future__ import annotations

import errno
import logging
import select
import socket
import ssl
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pynetdicom.association import Association
from pynetdicom.transport import (
    AddressInformation,
    RequestHandler,
    ThreadedAssociationServer,
)

from dicom_node.acceptor import association_for, read_request
from dicom_node.admission import Caller, Refusal, Rejection, TurnedAwayError
from dicom_node.certificates import Shown
from dicom_node.occupancy import TooManyError
from dicom_node.open_associations import OpenAssociations
from dicom_node.pdu import CutOffError, abort_pdu, association_request, reject_pdu
from dicom_node.upper_layer import Pace, install

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pynetdicom.ae import ApplicationEntity
    from pynetdicom.pdu_primitives import A_ASSOCIATE
    from pynetdicom.presentation import PresentationContext

    from dicom_node.admission import Admission
    from dicom_node.certificates import ServerTls
    from dicom_node.occupancy import Associations, Place, WaitingRoom
    from dicom_node.rejections import Rejections

logger = logging.getLogger(__name__)

_FAREWELL_S: Final = 1.0
"""How long a peer that was turned away has to read why."""
_OUT_OF_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """What one listener goes by; the rooms may be shared with others."""

    admission: Admission
    waiting: WaitingRoom
    associations: Associations
    pace: Pace
    tls: ServerTls | None
    request_s: float
    per_title: int
    contexts: Callable[[A_ASSOCIATE], list[PresentationContext]]
    """What is offered to whoever asks for an association."""
    lack: Callable[[], str]
    """Says what the disk lacks to take anything in; empty if nothing."""
    rejections: Rejections
    """Counts who is turned away."""


class GuardedServer(ThreadedAssociationServer):
    """Accepts connections on a socket that others may accept on too."""

    daemon_threads = True

    def __init__(
        self,
        ae: ApplicationEntity,
        *arguments: Any,
        listening: socket.socket,
        guard: Guard,
        **more: Any,
    ) -> None:
        """Prepare; nothing is accepted yet.

        Args:
            ae: See :class:`pynetdicom.transport.AssociationServer`; so the others.
            *arguments: The same.
            listening: Bound and listening. Not closed for others that have it.
            guard: What it goes by.
            **more: As ``arguments``.
        """
        self._listening, self.guard = listening, guard
        self.open_associations = OpenAssociations()
        more["request_handler"] = GuardedHandler
        super().__init__(ae, *arguments, **more)

    def server_bind(self) -> None:
        """Take the socket that is there, instead of the one that was made."""
        made = self.socket
        assert made is not None  # socketserver has made it
        made.close()
        self.socket = self._listening
        # Somebody else may have accepted what has just been announced.
        self._listening.settimeout(0)
        self.server_address = self._listening.getsockname()

    def server_activate(self) -> None:
        """Do nothing: it listens."""

    def server_close(self) -> None:
        """Close this process's hold on the socket; others go on listening."""
        self._listening.close()

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection, and nothing else: the rest is its own thread's."""
        try:
            connection, address = self._listening.accept()
        except OSError as error:
            if error.errno in _OUT_OF_DESCRIPTORS:
                logger.error("no more connections: %s", error.strerror)  # noqa: TRY400
                time.sleep(0.1)  # or it would be tried again at once, for ever
            raise
        return connection, address

    def handle_error(self, request: object, client_address: Any) -> None:  # noqa: ARG002
        """Say what went wrong with a connection; the others go on."""
        error = sys.exception()
        logger.error("connection from=%s", client_address[0], exc_info=error)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection; those of associations are closed by their handlers.

        An association would close it before its last word is sent.
        """
        if not isinstance(threading.current_thread(), Association):
            super().shutdown_request(request)

    @property
    def is_busy(self) -> bool:
        """Return whether a connection is open, whether it has said who it is or not."""
        return bool(len(self.open_associations) or len(self.guard.waiting))


class GuardedHandler(RequestHandler):
    """One connection, from its first byte to its last, in a thread of its own."""

    server: GuardedServer
    request: socket.socket

    def handle(self) -> None:
        """Let the peer in, or say why not."""
        guard, host = self.server.guard, str(self.client_address[0])
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        place = guard.waiting.enter(host, self._shut)
        try:
            self._admit(place)
        except CutOffError as error:
            if not place.is_evicted:
                logger.info("cut off from=%s: %s", host, error)
            self._farewell(abort_pdu(0))
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", "") or error.reason or error
            logger.warning("refused from=%s: TLS: %s", host, reason)
            guard.rejections.note_host(host, f"TLS: {reason}"[:200])
        except OSError as error:
            logger.debug("gone from=%s: %s", host, error)
        finally:
            guard.waiting.leave(place)
            self.request.close()

    def _admit(self, place: Place) -> None:
        """Do what comes before an association, and then have it."""
        guard = self.server.guard
        deadline = time.monotonic() + guard.request_s
        # Who says nothing costs a thread that sleeps, and no more than that.
        if not _speaks(self.request, guard.request_s):
            raise OSError("it has said nothing")
        shown = self._secured(deadline)
        first = association_request(self.request, deadline)
        asked = read_request(first)
        caller = Caller(
            place.host,
            (asked.calling_ae_title or "").strip(),
            (asked.called_ae_title or "").strip(),
            shown,
        )
        try:
            with self._seat(caller):
                guard.waiting.leave(place)
                self._associate(asked, caller, first)
        except TurnedAwayError as error:
            logger.warning(
                "refused from=%s calling=%a called=%a certificate=%s: %s",
                caller.host,
                caller.calling,
                caller.called,
                "none" if shown is None else shown.fingerprint,
                error,
            )
            guard.rejections.note(caller, str(error))
            self._farewell(reject_pdu(*error.refusal.rejection.value))

    def _secured(self, deadline: float) -> Shown | None:
        """Do the TLS handshake, if there is one, and return what the peer has shown."""
        tls = self.server.guard.tls
        if tls is None:
            return None
        context = tls.context
        self.request = secured = context.wrap_socket(
            self.request, server_side=True, do_handshake_on_connect=False
        )
        secured.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            secured.do_handshake()
        except TimeoutError:
            raise CutOffError("the TLS handshake took too long") from None
        encoded = secured.getpeercert(binary_form=True)
        try:
            return Shown.of(encoded) if encoded else None
        except ValueError as error:
            raise CutOffError(str(error)) from None

    @contextmanager
    def _seat(self, caller: Caller) -> Iterator[None]:
        """Let a caller in for as long as the block lasts.

        Raises:
            TurnedAwayError: The rules are against it, or there is no room.
        """
        guard = self.server.guard
        refusal = guard.admission.judge(caller)
        if refusal is not None:
            raise TurnedAwayError(refusal)
        if lack := guard.lack():
            raise TurnedAwayError(Refusal(Rejection.LIMIT_EXCEEDED, lack))
        per_title = guard.admission.most_associations(caller.calling, guard.per_title)
        try:
            with guard.associations.seat(caller.host, caller.calling, per_title):
                yield
        except TooManyError as error:
            refusal = Refusal(Rejection.LIMIT_EXCEEDED, str(error))
            raise TurnedAwayError(refusal) from None

    def _associate(self, asked: A_ASSOCIATE, caller: Caller, first: bytes) -> None:
        """Have an association, and return once it has ended."""
        assoc = association_for(
            self.server,
            caller,
            self.server.guard.contexts(asked),
            local=self.local,
            remote=AddressInformation.from_tuple(self.client_address),
        )
        # Open first: whoever is turned away there has its connection still.
        with self.server.open_associations.having(assoc):
            ended = install(assoc, self.request, first, self.server.guard.pace)
            try:
                assoc.start()
                assoc.join()
            finally:
                ended()

    def _farewell(self, pdu: bytes) -> None:
        """Send a last word, and give the peer a moment to read it."""
        with suppress(OSError, ValueError):
            self.request.settimeout(_FAREWELL_S)
            self.request.sendall(pdu)
            socket.socket.shutdown(self.request, socket.SHUT_WR)
            end = time.monotonic() + _FAREWELL_S
            while self.request.recv(4096) and time.monotonic() < end:
                pass

    def _shut(self) -> None:
        """End the connection from another thread, past TLS, which has but one user."""
        with suppress(OSError):
            socket.socket.shutdown(self.request, socket.SHUT_RDWR)


def _speaks(connection: socket.socket, within_s: float) -> bool:
    """Say whether there is something to read, waiting for it; it stays to be read.

    That whoever called has hung up is not.
    """
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(within_s * 1000)) and bool(
        connection.recv(1, socket.MSG_PEEK)
    )

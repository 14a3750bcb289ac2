"""Calls for storage commitment: ask a destination, and tell a peer, over associations.

What a destination answers on the association on which it was asked is taken there; most
open one of their own later. These are few and short messages: pynetdicom has the
association.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from pynetdicom import AE, build_role, evt

from dicom_node import closed_sockets
from dicom_node.calling_tls import tls_to
from dicom_node.commitment import (
    ASK,
    SOP_CLASS,
    SOP_INSTANCE,
    SYNTAXES,
    Report,
    reason_in_words,
)
from dicom_node.commitment_events import read_report
from dicom_node.errors import SendInterruptedError, UnreachableError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from pynetdicom.association import Association
    from pynetdicom.events import Event

    from dicom_node.commitment import Request
    from dicom_node.destination import Destination
    from dicom_node.listening import Peer
    from dicom_node.slots import Slots

logger = logging.getLogger(__name__)

ANSWERED_HERE_S: Final = 3.0
"""How long an association is kept open for an answer on it."""
_WAIT_S: Final = 60.0
"""How long to wait for others to give up an association; they have turns of seconds."""
_AGAIN_S: Final = 0.2


class Calls:
    """Opens associations."""

    def __init__(self, ae_title: str, timeout_s: float, slots: Slots) -> None:
        """Keep who calls.

        Args:
            ae_title: This node's own.
            timeout_s: For each message of a peer; destinations have their own.
            slots: How many associations each destination may have.
        """
        closed_sockets.install()
        self._slots = slots
        self._ae_title, self._timeout_s = ae_title, timeout_s

    def ask(
        self,
        destination: Destination,
        request: Request,
        take: Callable[[Report], int],
    ) -> None:
        """Return once a destination has said that it will answer a request.

        Args:
            destination: Which has the instances.
            request: What it is to keep.
            take: Called with what it reports on this association, and returns the status
                of the answer.

        Raises:
            UnreachableError: It cannot be reached.
            SendInterruptedError: It does not want to be asked, or others have all the
                associations that it is allowed.
        """
        named = destination.named
        reported = threading.Event()

        def on_report(event: Event) -> tuple[int, None]:
            status, report = read_report(event, take)
            if report is not None:
                reported.set()
            return status, None

        with (
            self._slot(named, destination),
            self._associated(
                named,
                destination.host,
                destination.port,
                destination.ae_title,
                tls_to(named, destination),
                destination.timeout_s,
                handlers=[(evt.EVT_N_EVENT_REPORT, on_report)],
            ) as association,
        ):
            status, _ = association.send_n_action(
                request.to_dataset(), ASK, SOP_CLASS, SOP_INSTANCE
            )
            _require_success(named, getattr(status, "Status", None))
            reported.wait(ANSWERED_HERE_S)

    def tell(self, peer: Peer, report: Report) -> None:
        """Return once a peer has been told what it asked.

        Raises:
            UnreachableError: It cannot be reached.
            SendInterruptedError: It will not hear it.
        """
        named = f"peer {peer.ae_title} ({peer.host}:{peer.port})"
        with self._associated(
            named,
            peer.host,
            peer.port,
            peer.ae_title,
            tls_to(named, peer),
            self._timeout_s,
            is_provider=True,
        ) as association:
            tell_on(association, named, report)

    @contextmanager
    def _slot(self, named: str, destination: Destination) -> Iterator[None]:
        """Have one of the associations that a destination is allowed, for a block."""
        if not destination.max_associations:
            yield
            return
        until = time.monotonic() + _WAIT_S
        while (slot := self._slots.take(destination)) is None:
            if time.monotonic() > until:
                raise SendInterruptedError(
                    f"{named} has {destination.max_associations} associations with this "
                    "node, as many as max_associations allows"
                )
            time.sleep(_AGAIN_S)
        try:
            yield
        finally:
            slot.close()
            if self._slots.is_wanted(destination):
                time.sleep(4 * _AGAIN_S)  # who has waited comes first

    @contextmanager
    def _associated(
        self,
        named: str,
        host: str,
        port: int,
        called: str,
        tls: tuple[ssl.SSLContext, str] | None,
        timeout_s: float,
        *,
        handlers: list[evt.EventHandlerType] | None = None,
        is_provider: bool = False,
    ) -> Iterator[Association]:
        ae = AE(self._ae_title)
        ae.connection_timeout = ae.acse_timeout = timeout_s
        ae.dimse_timeout = ae.network_timeout = timeout_s
        ae.add_requested_context(SOP_CLASS, list(SYNTAXES))
        role = build_role(SOP_CLASS, scp_role=True)  # PS3.7 D.3.3.4
        association = ae.associate(
            host,
            port,
            ae_title=called,
            ext_neg=[role] if is_provider else None,
            evt_handlers=handlers or [],
            tls_args=tls,
        )
        if not association.is_established:
            raise UnreachableError(
                f"{named} is not there for storage commitment",
                hint="Does it know this node's AE title and address, and does it offer "
                "the Storage Commitment Push Model?",
            )
        try:
            yield association
        except (RuntimeError, ValueError) as error:
            # It has gone meanwhile, or has accepted nothing that it could be said in.
            raise UnreachableError(
                f"{named} takes no storage commitment messages now"
            ) from error
        finally:
            association.release()  # if it is there


def tell_on(association: Association, named: str, report: Report) -> None:
    """Return once a peer has been told on an association that is open.

    Args:
        association: With it.
        named: The peer, for people.
        report: What it is told.

    Raises:
        SendInterruptedError: It will not hear it.
        RuntimeError: The association has ended.
    """
    status, _ = association.send_n_event_report(
        report.to_dataset(), report.event_type, SOP_CLASS, SOP_INSTANCE
    )
    _require_success(named, getattr(status, "Status", None))


def _require_success(named: str, status: int | None) -> None:
    if status is None:
        raise UnreachableError(f"{named} did not answer about storage commitment")
    if status != 0x0000:
        raise SendInterruptedError(
            f"{named} answered {reason_in_words(status)} about storage commitment",
            hint="Its log says why.",
        )

"""Storage commitment where peers come in: who is offered it, and what is done then.

An AE title alone proves nothing: it is offered to peers that the configuration ties to a
certificate, or to networks, and that have been let in as such. Those that may ask are
answered on an association of our own; one whose address is not known is answered on its
own, if that is still open. Destinations that answer here are believed of what they were
asked, and of nothing else.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from pynetdicom import build_context, evt

from dicom_node.commitment import SOP_CLASS, SYNTAXES
from dicom_node.commitment_calls import tell_on
from dicom_node.commitment_events import read_report, read_request
from dicom_node.errors import NodeError

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.events import Event
    from pynetdicom.presentation import PresentationContext

    from dicom_node.commitment import Request
    from dicom_node.committing import Committing
    from dicom_node.config import Config
    from dicom_node.listening import Peer

logger = logging.getLogger(__name__)

NOT_AUTHORISED = 0x0124


class CommitmentScp:
    """Offers storage commitment, and answers."""

    def __init__(self, config: Config, committing: Committing) -> None:
        """Keep what it needs.

        Args:
            config: Peers, and destinations.
            committing: What follows from what peers say.
        """
        self._config, self._committing = config, committing

    @property
    def handlers(self) -> list[evt.EventHandlerType]:
        """Return what handles the events of an association."""
        return [
            (evt.EVT_N_ACTION, self._on_action),
            (evt.EVT_N_EVENT_REPORT, self._on_report),
        ]

    def offered(self, calling: str) -> list[PresentationContext]:
        """Return the context that a peer is offered, if it may say anything.

        Args:
            calling: Its title, which the guard has found to be its own.
        """
        peer = self._config.peer(calling)
        if peer is None or not peer.is_proven:
            return []
        if not peer.commitment and not self._config.committing(calling):
            return []
        context = build_context(SOP_CLASS, list(SYNTAXES))
        # Whoever answers here is the provider, and says so (PS3.7 D.3.3.4).
        context.scu_role = context.scp_role = True
        return [context]

    def _on_action(self, event: Event) -> tuple[int, None]:
        peer = self._config.peer(_calling(event))
        if peer is None or not peer.commitment:
            return NOT_AUTHORISED, None

        status, request = read_request(
            event, lambda request: self._committing.take_request(peer, request)
        )
        if request is not None and status == 0 and not peer.host:
            threading.Thread(
                target=self._tell_here, args=(event.assoc, peer, request), daemon=True
            ).start()
        return status, None

    def _on_report(self, event: Event) -> tuple[int, None]:
        destinations = self._config.committing(_calling(event))
        if not destinations:
            return NOT_AUTHORISED, None
        status, _ = read_report(
            event, lambda report: self._committing.take_report(destinations, report)
        )
        return status, None

    def _tell_here(
        self, association: Association, peer: Peer, request: Request
    ) -> None:
        """Tell a peer on its own association, after its request has been answered."""
        try:
            report = self._committing.answer_to(request)
            tell_on(association, f"peer {peer.ae_title}", report)
            self._committing.was_told(peer, request)
        except (NodeError, RuntimeError, ValueError) as error:
            logger.warning("commitments not told to=%s: %s", peer.ae_title, error)


def _calling(event: Event) -> str:
    return str(event.assoc.requestor.ae_title).strip()

"""Storage commitment, both ways: who is asked, who is told, and what becomes of it.

A destination is asked once something of a study was sent to it and not asked for yet; what
it does not answer in time it is asked again. A peer that asks is told, again and again
until it has heard it. Whatever is done is in the queue's file before: a process that dies
leaves nothing open.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from dicom_node.commitment import Failure, Report
from dicom_node.commitment_events import RESOURCE_LIMITATION, SUCCESS
from dicom_node.errors import NodeError
from dicom_node.queue.retry import next_attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime
    from typing import Protocol

    from dicom_node.commitment import Request
    from dicom_node.config import Config
    from dicom_node.destination import Destination
    from dicom_node.listening import Peer
    from dicom_node.queue.commitments import Asked, Commitments, Settled

    class Caller(Protocol):
        """Opens associations; see :class:`dicom_node.commitment_calls.Calls`."""

        def ask(
            self,
            destination: Destination,
            request: Request,
            take: Callable[[Report], int],
        ) -> None:
            """Ask a destination, or raise a NodeError."""
            ...

        def tell(self, peer: Peer, report: Report) -> None:
            """Tell a peer, or raise a NodeError."""
            ...


logger = logging.getLogger(__name__)

ASK_AFTER: Final = timedelta(seconds=2)
"""How long after an instance was sent its destination is asked for it."""
_UNHEARD: Final = timedelta(minutes=1)
"""When to ask again where nobody knows whether it was asked at all."""
_TOGETHER: Final = 500
"""Instances of one request."""
_WAITING: Final = 1000
"""Requests of one peer that wait to be answered."""


class Committing:
    """Knows who may say what, and what follows from it."""

    def __init__(
        self,
        config: Config,
        commitments: Commitments,
        is_kept: Callable[[str], bool],
        forget: Callable[[Sequence[Settled]], object],
        clock: Callable[[], datetime],
    ) -> None:
        """Keep what it needs.

        Args:
            config: Destinations that are asked, and peers that may ask.
            commitments: What is open.
            is_kept: Says of a file of the spool whether it is there.
            forget: Deletes the files of what is settled, if nobody else is owed them.
            clock: Returns the time, aware.
        """
        self._config, self._commitments = config, commitments
        self._is_kept, self._forget, self._clock = is_kept, forget, clock

    def take_report(self, destinations: Collection[Destination], report: Report) -> int:
        """Settle what destinations promise, and return the status of the answer.

        What is not known under its transaction changes nothing: it may have been told
        before, and its answer was lost.

        Args:
            destinations: Whose word it is.
            report: What it promises, and what not.

        Raises:
            SpoolError: It cannot be written down: the peer has to say it again.
        """
        most = max((one.commitment_attempts for one in destinations), default=0)
        now = self._clock()

        def again_at(refusals: int) -> datetime | None:
            if refusals > most:
                return None
            return next_attempt(self._config.retry, refusals, now)

        names = [one.name for one in destinations]
        outcome = self._commitments.reported(report, names, now, again_at)
        if outcome.committed:
            self._forget(outcome.committed)
        logger.info(
            "committed to=%s instances=%d again=%d held=%d",
            ",".join(names),
            len(outcome.committed),
            outcome.again,
            outcome.held,
        )
        return SUCCESS

    def take_request(self, peer: Peer, request: Request) -> int:
        """Note what a peer asks, and return the status of the answer.

        Raises:
            SpoolError: It cannot be written down.
        """
        now = self._clock()
        if not self._commitments.take(peer.ae_title, request, now, _WAITING):
            logger.warning("too many commitment requests from=%s", peer.ae_title)
            return RESOURCE_LIMITATION
        logger.info(
            "asked to commit from=%s instances=%d",
            peer.ae_title,
            len(request.references),
        )
        return SUCCESS

    def answer_to(self, request: Request) -> Report:
        """Return what a peer is told that asks now.

        Raises:
            SpoolError: It cannot be read.
        """
        reasons = self._commitments.against(request.references, self._is_kept)
        pairs = list(zip(request.references, reasons, strict=True))
        return Report(
            request.transaction_uid,
            tuple(one for one, reason in pairs if reason is None),
            tuple(Failure(one, why) for one, why in pairs if why is not None),
        )

    def turn(self, calls: Caller, new_uid: Callable[[], str]) -> bool:
        """Ask one destination and tell one peer; False if there is nothing to do.

        Args:
            calls: Opens associations.
            new_uid: Returns a UID that nobody has used.

        Raises:
            SpoolError: The queue's file cannot be used.
        """
        has_asked = self._ask(calls, new_uid())
        asked = self._commitments.to_tell(self._clock())
        if asked is not None:
            self._tell(calls, asked)
        return has_asked or asked is not None

    def was_told(self, peer: Peer, request: Request) -> None:
        """Note that a peer was told what it asked.

        Raises:
            SpoolError: It cannot be written down: it is told again.
        """
        for asked in self._commitments.untold():
            if (asked.peer, asked.request) == (peer.ae_title, request):
                self._commitments.told(asked)
        logger.info("told commitments to=%s", peer.ae_title)

    def _ask(self, calls: Caller, transaction_uid: str) -> bool:
        now = self._clock()
        transaction = self._commitments.ask(
            transaction_uid, now, now + _UNHEARD, _TOGETHER
        )
        if transaction is None:
            return False
        name = transaction.destination
        found = [one for one in self._config.destinations if one.name == name]
        try:
            if not found:
                raise NodeError(f"destination {name!r} is not in the configuration")  # noqa: TRY301
            calls.ask(
                found[0],
                transaction.request,
                lambda report: self.take_report(found, report),
            )
        except NodeError as error:
            retry = self._config.retry
            longest = self._clock() + retry.longest_wait
            again = next_attempt(retry, transaction.asks, self._clock()) or longest
            logger.warning("not asked to commit: %s", error)
            self._commitments.put_off(
                transaction_uid, again, f"{error}. {error.hint}".strip()
            )
        else:
            wait = timedelta(seconds=found[0].commitment_timeout_s)
            self._commitments.put_off(transaction_uid, self._clock() + wait)
            count = len(transaction.request.references)
            logger.info("asked to commit to=%s instances=%d", name, count)
        return True

    def _tell(self, calls: Caller, asked: Asked) -> None:
        peer = self._config.peer(asked.peer)
        retry, now = self._config.retry, self._clock()
        if peer is None or not peer.commitment:
            logger.error("commitments not told: no peer %s may ask", asked.peer)
            self._commitments.told(asked)
            return
        try:
            if not peer.host:
                raise NodeError(  # noqa: TRY301
                    f"peer {peer.ae_title} has no host and port, and its association "
                    "has ended"
                )
            calls.tell(peer, self.answer_to(asked.request))
        except NodeError as error:
            again = next_attempt(retry, asked.attempts + 1, now)
            if again is None:
                logger.error("commitments never told: %s", error)  # noqa: TRY400
                self._commitments.told(asked)
                return
            logger.warning("commitments not told: %s", error)
            self._commitments.tell_later(asked, again, str(error))
        else:
            self.was_told(peer, asked.request)

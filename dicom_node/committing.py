"""Storage commitment, both ways: who is asked, who is told, and what becomes of it.

A destination is asked once something of a study was sent to it and not asked for yet;
what it does not answer in time it is asked again. A peer that asks is told, again and
again until it has heard it. Each call is an errand of its own, so that nobody waits for
somebody else who does not answer; who could not be reached is left alone for a while,
whatever else there is to say to him. Whatever is done is in the queue's file before: a
process that dies leaves nothing open.
"""

from __future__ import annotations

import logging
import random
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from dicom_node.commitment import Failure, Report
from dicom_node.commitment_events import RESOURCE_LIMITATION, SUCCESS
from dicom_node.errors import NodeError, UnreachableError
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

_UNHEARD: Final = timedelta(minutes=1)
"""When to ask again where nobody knows whether it was asked at all."""
_TOGETHER: Final = 500
"""Instances of one request."""
_WAITING: Final = 1000
"""Requests of one peer that wait to be answered."""


class Errand(NamedTuple):
    """Somebody to whom there is something to say."""

    to: str
    """The name of a destination, or the AE title of a peer."""
    is_peer: bool = False
    """Whether a peer is told something; else a destination is asked."""


class Committing:
    """Knows what follows from what is said. Several threads may ask it."""

    def __init__(
        self,
        config: Config,
        commitments: Commitments,
        is_kept: Callable[[str], bool],
        forget: Callable[[Sequence[Settled]], object],
        clock: Callable[[], datetime],
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Keep what it needs.

        Args:
            config: Destinations that are asked, and peers that may ask.
            commitments: What is open.
            is_kept: Says of a file of the spool whether it is there.
            forget: Deletes the files of what is settled, if nobody else is owed them.
            clock: Returns the time, aware.
            chance: Returns a number from 0 up to 1.
        """
        self._chance = chance
        self._config, self._commitments = config, commitments
        self._is_kept, self._forget, self._clock = is_kept, forget, clock
        self._lock = threading.RLock()
        self._asked_names = [d.name for d in config.destinations if d.commitment]
        self._unreached: dict[Errand, tuple[int, datetime]] = {}
        """How often in a row somebody was not reached, and until when he is let be."""

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
            return next_attempt(self._config.retry, refusals, now, self._chance)

        names = [one.name for one in destinations]
        with self._lock:
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
        with self._lock:
            is_taken = self._commitments.take(peer.ae_title, request, now, _WAITING)
        if not is_taken:
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
        with self._lock:
            reasons = self._commitments.against(request.references, self._is_kept)
        pairs = list(zip(request.references, reasons, strict=True))
        return Report(
            request.transaction_uid,
            tuple(one for one, reason in pairs if reason is None),
            tuple(Failure(one, why) for one, why in pairs if why is not None),
        )

    def errands(self, down: Collection[str] = ()) -> list[Errand]:
        """Return to whom there is something to say now.

        Args:
            down: Destinations that there is no use in calling.

        Raises:
            SpoolError: The queue's file cannot be used.
        """
        now, names = self._clock(), [n for n in self._asked_names if n not in down]
        with self._lock:
            due = [Errand(name) for name in self._commitments.due(names, now)]
            titles = self._commitments.peers_to_tell(now)
            due += [Errand(title, is_peer=True) for title in titles]
            return [one for one in due if not self._is_let_be(one, now)]

    def _is_let_be(self, errand: Errand, now: datetime) -> bool:
        _, until = self._unreached.get(errand, (0, now))
        return now < until

    def run(self, errand: Errand, calls: Caller, new_uid: Callable[[], str]) -> bool:
        """Ask a destination about one study, or tell a peer one thing.

        Args:
            errand: Whom.
            calls: Opens associations.
            new_uid: Returns a UID that nobody has used.

        Returns:
            Whether there may be more to say at once.

        Raises:
            SpoolError: The queue's file cannot be used.
        """
        if not errand.is_peer:
            return self._ask(errand, calls, new_uid())
        with self._lock:
            asked = self._commitments.to_tell(errand.to, self._clock())
        return asked is not None and self._tell(errand, calls, asked)

    def _reached(self, errand: Errand) -> None:
        with self._lock:
            self._unreached.pop(errand, None)

    def _let_be(self, errand: Errand) -> datetime:
        """Note that somebody was not reached, and return until when he is let be."""
        with self._lock:
            times, _ = self._unreached.get(errand, (0, None))
            until = self._next(times + 1)
            self._unreached[errand] = (times + 1, until)
        return until

    def _next(self, attempts: int) -> datetime:
        retry, moment = self._config.retry, self._clock()
        longest = moment + retry.longest_wait
        return next_attempt(retry, attempts, moment, self._chance) or longest

    def was_told(self, peer: Peer, request: Request) -> None:
        """Note that a peer was told what it asked.

        Raises:
            SpoolError: It cannot be written down: it is told again.
        """
        with self._lock:
            for asked in self._commitments.untold():
                if (asked.peer, asked.request) == (peer.ae_title, request):
                    self._commitments.told(asked)
        logger.info("told commitments to=%s", peer.ae_title)

    def _ask(self, errand: Errand, calls: Caller, transaction_uid: str) -> bool:
        name, now = errand.to, self._clock()
        with self._lock:
            transaction = self._commitments.ask(
                name, transaction_uid, now, now + _UNHEARD, _TOGETHER
            )
        if transaction is None:
            return False
        reason, goes_on = "", True
        destination = self._config.destination(name)
        try:
            wait_s = self._asked(calls, destination, name, transaction.request)
            again = self._clock() + timedelta(seconds=wait_s)
            count = len(transaction.request.references)
            logger.info("asked to commit to=%s instances=%d", name, count)
            self._reached(errand)
        except NodeError as error:
            logger.warning("not asked to commit: %s", error)
            goes_on = not isinstance(error, UnreachableError)
            again = self._next(transaction.asks) if goes_on else self._let_be(errand)
            reason = f"{error}. {error.hint}".strip()
        with self._lock:
            self._commitments.put_off(transaction_uid, again, reason)
        return goes_on

    def _asked(
        self,
        calls: Caller,
        destination: Destination | None,
        name: str,
        request: Request,
    ) -> float:
        """Ask a destination, and return how many seconds it has to answer."""
        if destination is None:
            raise NodeError(
                f"destination {name!r} is not in the configuration any more"
            )
        answering = [destination]
        calls.ask(
            destination, request, lambda report: self.take_report(answering, report)
        )
        return destination.commitment_timeout_s

    def _tell(self, errand: Errand, calls: Caller, asked: Asked) -> bool:
        peer = self._config.peer(asked.peer)
        if peer is None or not peer.commitment:
            logger.error("commitments not told: no peer %s may ask", asked.peer)
            self._give_up(asked)
            return True
        try:
            if not peer.host:
                raise NodeError(  # noqa: TRY301 as if it could not be reached
                    f"peer {peer.ae_title} has no host and port, and its association "
                    "has ended"
                )
            calls.tell(peer, self.answer_to(asked.request))
        except (NodeError, OSError) as error:
            self._tell_later(asked, error)
            if isinstance(error, UnreachableError):
                self._let_be(errand)
                return False
            return True
        self._reached(errand)
        self.was_told(peer, asked.request)
        return True

    def _tell_later(self, asked: Asked, error: Exception) -> None:
        retry, moment = self._config.retry, self._clock()
        again = next_attempt(retry, asked.attempts + 1, moment, self._chance)
        if again is None:
            logger.error("commitments never told: %s", error)
            self._give_up(asked)
            return
        logger.warning("commitments not told: %s", error)
        with self._lock:
            self._commitments.tell_later(asked, again, str(error))

    def _give_up(self, asked: Asked) -> None:
        with self._lock:
            self._commitments.told(asked)

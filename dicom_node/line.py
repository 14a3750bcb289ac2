"""What one destination is owed, done one job after another: ready, sent, settled.

A line belongs to one destination, or to one pool, and has a thread, an association and a
place among those who wait of its own: whoever is slow, or answers nothing, holds up his
own line and nobody else's.

``except Exception`` has its home here, and where several instances leave at once
(:mod:`dicom_node.outbox`): one must not stop the others.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from dicom_node.delivering import go_in_requests
from dicom_node.errors import SendError, UnreachableError
from dicom_node.passing import Dropped
from dicom_node.readying import Lost
from dicom_node.routing import Action
from dicom_node.senders import NoTurnError
from dicom_node.settling import NOT_TRIED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from dicom_node.breaker import Health
    from dicom_node.config import Config
    from dicom_node.delivering import Delivering
    from dicom_node.lease import Lease
    from dicom_node.next_original import NextOriginal
    from dicom_node.outbox import Outbox
    from dicom_node.queue.claims import Resting
    from dicom_node.queue.job import Job
    from dicom_node.readying import Readying
    from dicom_node.senders import Senders
    from dicom_node.settling import Settling

logger = logging.getLogger(__name__)

TOGETHER: Final = 16
"""Jobs that are claimed together, and settled together when they are sent."""
_IN_REQUESTS: Final = 64
"""Likewise, where several go in one request."""
_TOGETHER_S: Final = 5.0
"""After which those that are not begun are put back: a worker that is told to stop has
half a minute to end, and others may be more urgent."""


class Line:
    """The jobs of one destination; one thread at a time."""

    def __init__(
        self,
        name: str,
        config: Config,
        *,
        lease: Lease,
        delivering: Delivering,
        outbox: Outbox,
        readying: Readying,
        senders: Senders,
        settling: Settling,
        failed: Callable[[Job, Exception], None],
        clock: Callable[[], datetime],
        coming: NextOriginal | None = None,
    ) -> None:
        """Keep what the work needs.

        Args:
            name: Of the destination or pool, as jobs name it.
            config: What to do.
            lease: On what it claims.
            delivering: Delivers its jobs.
            outbox: Where that puts what was sent, and what goes together.
            readying: Is told whose turn is over.
            senders: Knows who is down; this line's own.
            settling: Settles jobs.
            failed: Is told of jobs that could not be delivered.
            clock: Returns the time, aware.
            coming: Makes ready what is stripped next; None for all in its time.
        """
        self.name, self._config = name, config
        self._lease, self._delivering, self._outbox = lease, delivering, outbox
        self._readying, self._senders, self._settling = readying, senders, settling
        self._failed, self._clock, self._next = failed, clock, coming
        self.finished = time.monotonic()
        """When it had nothing more to do."""

    def work(self, job: Job, resting: Resting) -> None:
        """Do a claimed job, and a few more like it.

        Whatever happens to them, they are settled, put back or held when this returns.

        Args:
            job: One of this line's.
            resting: Whose jobs wait.

        Raises:
            SpoolError: The queue cannot be used; see :meth:`recover`.
        """
        started = time.monotonic()
        left: list[Job] = []  # what was claimed together, and is not begun
        self._lease.begin(job)
        try:
            # What could not be delivered tells what will become of the others.
            goes_on = self._settling.gave_up(job) or self._try(job)
            if goes_on and time.monotonic() - started < _TOGETHER_S:
                left += self._more_like(job, resting)
            while left and time.monotonic() - started < _TOGETHER_S:
                if self._next is not None and not self._next.wait(
                    self._outbox.settled_after_s
                ):
                    self._outbox.settle()  # the next takes long to be made
                one = left.pop(0)
                self._lease.take_up(one)
                then = left[0] if left else None
                if not self._settling.gave_up(one) and not self._try(one, then):
                    break
                if self._outbox.is_due:
                    self._outbox.settle()
        finally:
            try:
                self._end(left)
            finally:
                self._readying.let_be(self._lease.jobs)
                self.finished = time.monotonic()
        self._lease.clear()

    def _end(self, left: Sequence[Job]) -> None:
        """Settle what was sent, and put back what is not begun."""
        try:
            self._outbox.send()
            self._outbox.settle()
        finally:
            if self._next is not None:
                self._next.clear()  # which may take long; it is of this claim
        self._settling.not_begun(left)

    def renew(self, now: datetime) -> None:
        """Renew the lease of what it is at, by any thread; see :meth:`Lease.renew`."""
        self._lease.renew(now)

    @property
    def is_open(self) -> bool:
        """Return whether something is open; see :meth:`rest`."""
        return self._senders.are_open

    @property
    def is_stuck(self) -> bool:
        """Return whether it has jobs that could not be settled, and does nothing more."""
        return bool(self._lease.jobs)

    def recover(self, not_before: datetime) -> None:
        """Put back what could not be settled: what was sent of it is sent once more.

        Args:
            not_before: When it is due again.

        Raises:
            SpoolError: The queue cannot be used yet.
        """
        self._outbox.clear()
        self._lease.put_back(not_before)

    def rests(self, now: datetime, health: Mapping[str, Health]) -> bool:
        """Say whether its jobs wait for an association that others have.

        Args:
            now: Aware.
            health: How each destination is.
        """
        return self.name in self._senders.resting(now, health).destinations

    def rest(self) -> None:
        """Close what is open: nothing is due for now."""
        self._senders.rest()

    def close(self) -> None:
        """End what makes ready ahead."""
        if self._next is not None:
            self._next.close()

    def _more_like(self, job: Job, resting: Resting) -> list[Job]:
        """Claim more like ``job``, if each takes no longer to send than to settle."""
        route = self._config.route(job.route)
        if job.attempts > 1 or route is None or route.action is Action.MARK:
            return []
        members = self._config.members(job.destination)
        count = _IN_REQUESTS if go_in_requests(members) else TOGETHER
        return self._lease.claim_more(job, count - 1, resting)

    def _try(self, job: Job, then: Job | None = None) -> bool:
        """Do a job; False if nothing more can be delivered where it goes, for now."""
        try:
            self._delivering.deliver(job, then)
        except Dropped as said:
            self._settling.dropped(job, str(said))
        except Lost:
            logger.warning("overtaken instance=%s", job.sop_instance_uid)
        except NoTurnError:
            self._senders.wait_for_turn(job.destination)
            self._lease.was_not_tried(job)
            self._settling.not_begun([job])
            return False
        except Exception as error:  # noqa: BLE001 one must not stop the others
            if isinstance(error, NOT_TRIED):
                self._lease.was_not_tried(job)
            self._failed(job, error)
            if isinstance(error, UnreachableError):
                return False
            if isinstance(error, SendError):
                resting = self._senders.resting(self._clock())
                return job.destination not in resting.destinations
        return True

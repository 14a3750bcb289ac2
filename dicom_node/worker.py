"""Take the jobs that are due and give them to their lines, which do them side by side.

The worker is a process of its own, so that marking never slows receiving and its death
costs a lease and nothing else. What is sent is written to the spool first, so that a
retry sends the same bytes: never two different marks of one original.

It claims the most urgent job of those whose line has nothing to do: what is owed to one
destination waits for nobody else's. A lease that runs out while a line is at its job is
therefore nobody's either; where nodes share the queue it would be, so it is renewed.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from dicom_node.bench import Bench
from dicom_node.delivering import Delivering
from dicom_node.lease import LEASE, Lease
from dicom_node.line import Line
from dicom_node.next_original import NextOriginal
from dicom_node.outbox import Outbox
from dicom_node.quiet_studies import QuietStudies
from dicom_node.resting import resting_routes
from dicom_node.settling import Settling

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from dicom_node.config import Config
    from dicom_node.glass import Glass
    from dicom_node.hands import Hands
    from dicom_node.listings import Listings
    from dicom_node.queue.claims import Resting
    from dicom_node.queue.commitments import Commitments
    from dicom_node.queue.job import Job
    from dicom_node.queue.protocol import Queue
    from dicom_node.readying import Readying
    from dicom_node.senders import Senders
    from dicom_node.spool import Spool

logger = logging.getLogger(__name__)

_REST_AFTER_S: Final = 2.0
"""How long a line has nothing to do until it closes what it has open."""
_FINISHING_S: Final = 20.0
"""How long lines are waited for at the end: whoever supervises waits half a minute."""
_CLOSING_S: Final = 7.0
"""And until they have said goodbye, for which a receiver is given five seconds."""


class Worker:
    """Works off a queue."""

    def __init__(
        self,
        config: Config,
        *,
        queue: Queue,
        spool: Spool,
        readying: Readying,
        glass: Glass,
        senders: Callable[[], Senders],
        clock: Callable[[], datetime],
        listings: Listings | None = None,
        commitments: Commitments | None = None,
        bench: Bench | None = None,
        hands: Hands | None = None,
        is_changing: Callable[[], bool] = lambda: False,
    ) -> None:
        """Keep what the work needs.

        Args:
            config: What to do.
            queue: What is owed.
            spool: Where its files are.
            readying: Makes what is sent.
            glass: Judges orders to send something as it came.
            senders: Returns what knows whom jobs go to, and who is down, for one line.
            clock: Returns the time, aware.
            listings: What routes with ``listing`` have sent and not listed yet.
            commitments: Where it is noted what destinations are to promise to keep.
            bench: Where instances are made ready.
            hands: Do the work of lines side by side; None for one after another.
            is_changing: Says whether jobs may be right by another configuration.
        """
        self._config, self._queue, self._clock = config, queue, clock
        self._senders, self._hands = senders, hands
        self._looking = senders()
        settling = Settling(queue, spool, config.retry, clock, commitments=commitments)
        bench = bench or Bench()

        def failed(job: Job, error: Exception) -> None:
            if settling.failed(job, error):
                readying.let_be([job])
            else:
                readying.forget(job)

        def line(name: str) -> Line:
            its_own, lease = senders(), Lease(queue, clock)
            coming = None if hands is None else NextOriginal(name)
            outbox = Outbox(
                spool=spool,
                readying=readying,
                senders=its_own,
                settling=settling,
                failed=failed,
                not_tried=lease.was_not_tried,
            )
            delivering = Delivering(
                config,
                queue=queue,
                spool=spool,
                readying=readying,
                glass=glass,
                senders=its_own,
                outbox=outbox,
                bench=bench,
                clock=clock,
                is_changing=is_changing,
                coming=coming,
            )
            return Line(
                name,
                config,
                lease=lease,
                delivering=delivering,
                outbox=outbox,
                readying=readying,
                senders=its_own,
                settling=settling,
                failed=failed,
                clock=clock,
                coming=coming,
            )

        self._line, self._lines = line, dict[str, Line]()
        """By the destination or pool whose jobs it does."""
        self.is_waiting = False
        """Whether a line waits for something that nobody tells it of."""
        self._quiet = None if listings is None else QuietStudies(listings, queue, spool)

    def turn(self) -> bool:
        """Have a job done that is due, and a few more like it; False if none is.

        Without hands, whatever happens to them, they are settled, put back or held when
        this returns.

        Raises:
            SpoolError: The queue cannot be used, or could not be by a line; see
                :meth:`recover`.
        """
        if self._hands is not None:
            self._hands.require_well()
        moment = self._clock()
        for name in self.busy:
            self._lines[name].renew(moment)
        for study in self._queue.complete_studies(moment):
            logger.info(
                "complete study=%s route=%s instances=%d expected=%d",
                *(study.study_instance_uid, study.route, study.arrived, study.expected),
            )
        if self._quiet is not None:
            self._quiet.list(self._config.routes, moment)
        resting = self._resting(moment)
        job = self._queue.claim(moment, LEASE, resting)
        if job is None:
            return False
        line = self._lines.get(job.destination)
        if line is None:
            line = self._lines[job.destination] = self._line(job.destination)
        if self._hands is None:
            line.work(job, resting)
        else:
            self._hands.begin(line.name, partial(line.work, job, resting))
        return True

    @property
    def busy(self) -> frozenset[str]:
        """Return whose lines are at something."""
        return frozenset() if self._hands is None else self._hands.busy

    def recover(self, not_before: datetime) -> bool:
        """Take up again what could not be settled; say whether that is all there is.

        Nobody else works in this lane, so once no line is at anything, nothing is
        claimed but what was lost.

        Args:
            not_before: When it is due again.

        Raises:
            SpoolError: The queue cannot be used yet.
        """
        busy = self.busy
        for name, line in self._lines.items():
            if name not in busy and line.is_stuck:
                line.recover(not_before)
        if busy:
            return False
        self._queue.release_claims(not_before)
        return True

    def rest(self, after_s: float = 0.0) -> None:
        """Close what is open where nothing was due for so many seconds."""
        now, busy = time.monotonic(), self.busy
        for name, line in self._lines.items():
            if name in busy or not line.is_open:
                continue
            if self._hands is None:
                line.rest()
            elif now - line.finished >= after_s:
                self._hands.begin(name, line.rest)

    def close(self) -> None:
        """End; lines finish what they are at, if that does not take too long."""
        if self._hands is not None:
            if not self._hands.wait(_FINISHING_S):
                logger.warning("not finished destinations=%d", len(self.busy))
            self.rest()
            self._hands.wait(_CLOSING_S)
            self._hands.close()
            for line in self._lines.values():
                line.close()
        else:
            self.rest()

    def _resting(self, moment: datetime) -> Resting:
        """Return whose jobs are not claimed: they wait, or their line is at something."""
        held = self._queue.held_routes()
        routes = resting_routes(self._config.routes, held, moment)
        if self._quiet is not None:
            routes |= self._quiet.resting(self._config.routes)
        resting = self._looking.resting(moment)._replace(routes=routes)
        busy = self.busy
        waiting = {
            name
            for name, line in self._lines.items()
            if name not in busy
            and (line.is_stuck or line.rests(moment, self._looking.health))
        }
        self.is_waiting = bool(waiting - resting.destinations)
        return resting._replace(destinations=resting.destinations | busy | waiting)

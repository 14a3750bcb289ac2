"""What becomes of a job once something has been done for it: settled, put back, held.

Three kinds of trouble are told apart. Trouble around an object (the destination, the
disk, a key service) passes: the job is put back, for as long as the retry policy says,
and where nobody was there to be sent it, for as long as that takes. A refusal is for a
person: the job is held. And trouble that nobody foresaw, or that kills the worker, is the
object's own until proven otherwise: a few tries, then it is quarantined. Whatever it is,
no other job waits for it once it is settled here.
"""

from __future__ import annotations

import logging
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from dicom_node.errors import (
    AuditError,
    BusyError,
    ChangingError,
    ClusterError,
    CodecProcessError,
    KeyFolderError,
    KeyServiceError,
    LedgerError,
    NodeError,
    SendError,
    SendRefusedError,
    SpoolError,
    UnforeseenError,
    UnreachableError,
)
from dicom_node.queue.retry import next_attempt
from miadmark_core.errors import MiadMarkError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from dicom_node.config import Retry
    from dicom_node.queue.commitments import Commitments, Sent
    from dicom_node.queue.job import Job
    from dicom_node.queue.protocol import Queue
    from dicom_node.spool import Spool

logger = logging.getLogger(__name__)

ASK_AFTER: Final = timedelta(seconds=2)
"""How long after an instance was sent its destination is asked to keep it."""

PASSING: Final = (
    SendError,
    SpoolError,
    LedgerError,
    KeyFolderError,
    KeyServiceError,
    AuditError,
    CodecProcessError,
    WeightsError,
    OSError,
)
"""Trouble around the instance, which another time may not be there."""

NOT_TRIED: Final = (UnreachableError, ChangingError, ClusterError)
"""Trouble before anything was tried: not the object's, so it keeps its attempts."""

_SOON: Final = timedelta(seconds=0.2)
"""When something is tried again that nobody was there for. Where that goes on, its
destination rests, and is asked instead."""


_CHANGING: Final = timedelta(seconds=5)
"""When something is judged again that another configuration may be right about."""


class Settling:
    """Settles the jobs of a queue."""

    def __init__(
        self,
        queue: Queue,
        spool: Spool,
        retry: Retry,
        clock: Callable[[], datetime],
        chance: Callable[[], float] = random.random,
        commitments: Commitments | None = None,
    ) -> None:
        """Keep what it needs.

        Args:
            queue: Whose jobs.
            spool: Where files are deleted once nobody is owed them.
            retry: When what failed is tried again, and how often.
            clock: Returns the time, aware.
            chance: Returns a number from 0 up to 1.
            commitments: What destinations are to promise to keep.
        """
        self._commitments = commitments
        self._queue, self._spool = queue, spool
        self._retry, self._clock, self._chance = retry, clock, chance

    def gave_up(self, job: Job) -> bool:
        """Say whether a claimed job is not even tried: it never got far enough before."""
        if job.crashes >= self._retry.max_crashes:
            self._quarantine(job, f"{job.crashes} workers died while they were at it")
            return True
        if job.attempts > self._retry.max_attempts:
            self.hold(job, NodeError(f"given up after {job.attempts - 1} attempts"))
            return True
        return False

    def sent(self, sent: Sequence[Sent]) -> list[bool]:
        """Settle jobs that the destination has; False for a claim that was lost.

        What it is to promise to keep stays, until it does.
        """
        now, commitments = self._clock(), self._commitments
        are_settled: dict[int, bool] = {}
        kept = [one for one in sent if one.reference is not None]
        if kept and commitments is not None:
            noted = commitments.sent(kept, now, now + ASK_AFTER)
            are_settled = {
                o.job.id: is_so for o, is_so in zip(kept, noted, strict=True)
            }
        others = [one for one in sent if one.job.id not in are_settled]
        jobs = [one.job for one in others]
        are_sent = self._queue.sent(jobs, now, [one.destination for one in others])
        self._spool.delete(self._queue.forget_sent(jobs))
        are_settled |= {j.id: is_so for j, is_so in zip(jobs, are_sent, strict=True)}
        return [are_settled[one.job.id] for one in sent]

    def dropped(self, job: Job, reason: str) -> None:
        """Settle a job unsent."""
        if self._queue.dropped(job, reason):
            logger.info("dropped instance=%s reason=%s", job.sop_instance_uid, reason)
        self._spool.delete(self._queue.forget_sent([job]))

    def failed(self, job: Job, error: Exception) -> bool:
        """Hold, put back or quarantine a job, whatever went wrong.

        Returns:
            Whether it is put back: nobody but the worker has to do anything.
        """
        if isinstance(error, UnreachableError):
            logger.info("waits instance=%s reason=%s", job.sop_instance_uid, error)
            soon = self._clock() + _SOON
            self._queue.retry(job, soon, str(error), is_free=True)
            return True
        if isinstance(error, NOT_TRIED):
            later = self._clock() + _CHANGING
            self._queue.retry(job, later, str(error), is_free=True)
            return True
        if isinstance(error, PASSING) and not isinstance(error, SendRefusedError):
            wait_s = error.wait_s if isinstance(error, BusyError) else 0.0
            hint = getattr(error, "hint", "")
            return self._put_back(job, str(error), hint, wait_s=wait_s)
        is_known = isinstance(error, (NodeError, MiadMarkError))
        if is_known and not isinstance(error, UnforeseenError):
            self.hold(job, error)
            return False
        # An image, a library or we are at fault; the others go on. What failed is never
        # sent as it is.
        logger.error("failed instance=%s", job.sop_instance_uid, exc_info=error)
        cause = error.__cause__ if isinstance(error, UnforeseenError) else error
        # Where there is no cause, it is somebody else who died of it.
        reason = f"unexpected {type(cause).__name__}" if cause else str(error)
        if job.faults + 1 >= self._retry.max_faults:
            self._quarantine(job, f"{reason}, {job.faults + 1} times now")
            return False
        return self._put_back(job, reason, is_fault=True)

    def not_begun(self, jobs: Sequence[Job]) -> None:
        """Put back jobs that there was no time for, or no association."""
        if jobs:
            self._queue.give_back(jobs, self._clock())

    def hold(self, job: Job, error: Exception) -> None:
        """Let a job wait for a person."""
        logger.warning("held instance=%s reason=%s", job.sop_instance_uid, error)
        self._queue.hold(job, f"{error}. {getattr(error, 'hint', '')}".strip())

    def _quarantine(self, job: Job, reason: str) -> None:
        logger.error("quarantined instance=%s reason=%s", job.sop_instance_uid, reason)
        self._queue.quarantine(
            job,
            f"{reason}. Look at the log of that time and at the object; then: miadmark "
            "release or discard.",
        )

    def _put_back(
        self,
        job: Job,
        reason: str,
        hint: str = "",
        *,
        is_fault: bool = False,
        wait_s: float = 0.0,
    ) -> bool:
        now = self._clock()
        again = next_attempt(self._retry, job.attempts, now, self._chance)
        if again is None:
            self.hold(job, NodeError(reason, hint=hint))
            return False
        again = max(again, now + timedelta(seconds=wait_s))
        logger.warning(
            "again instance=%s at=%s reason=%s",
            job.sop_instance_uid,
            again.isoformat(timespec="seconds"),
            reason,
        )
        self._queue.retry(job, again, reason, is_fault=is_fault)
        return True

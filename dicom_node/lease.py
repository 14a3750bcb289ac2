"""The lease on what one line has claimed: until when nobody else is to begin it.

What is claimed is settled, put back or held by others; what none of them could be told
of, because the queue could not be used, is still here, and is put back once it can be.
What was sent of that is then sent once more.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from dicom_node.queue.claims import Resting
    from dicom_node.queue.job import Job
    from dicom_node.queue.protocol import Queue

LEASE: Final = timedelta(minutes=15)
LONGEST: Final = timedelta(hours=2)
"""How long a lease is renewed: whoever takes longer hangs, and others may have a try."""


class Lease:
    """On the jobs of one line; used by its thread, but for :meth:`renew`."""

    def __init__(self, queue: Queue, clock: Callable[[], datetime]) -> None:
        """Begin with none.

        Args:
            queue: Where they are from.
            clock: Returns the time, aware.
        """
        self._queue, self._clock = queue, clock
        self._jobs: list[Job] = []
        """The queue may know more of them than is known here."""
        self._begun = set[int]()
        """Those of them that somebody is at, or was."""
        self._since = self._renewed = clock()
        """When they were claimed, and when their lease was begun last."""

    @property
    def jobs(self) -> Sequence[Job]:
        """Return what was claimed, whatever has become of it, until :meth:`clear`."""
        return self._jobs

    def begin(self, job: Job) -> None:
        """Note that a job has just been claimed, and is begun; there was none before."""
        self._since = self._renewed = self._clock()
        self._jobs, self._begun = [job], {job.id}

    def take_up(self, job: Job) -> None:
        """Note that one of those that were claimed with the first is begun."""
        self._begun.add(job.id)

    def was_not_tried(self, job: Job) -> None:
        """Note that a job that was begun has come to nothing, and costs no attempt.

        To be called before the queue is told, which it may be impossible to.
        """
        self._begun.discard(job.id)

    def claim_more(self, job: Job, count: int, resting: Resting) -> list[Job]:
        """Claim more that are like a job.

        Args:
            job: Which is claimed already.
            count: How many at most.
            resting: Whose jobs wait.

        Returns:
            The rest of its study, and then study by study.

        Raises:
            SpoolError: The queue cannot be used.
        """
        more = self._queue.claim_more(job, self._clock(), LEASE, count, resting)
        studies = dict.fromkeys(one.study_instance_uid for one in (job, *more))
        order = {study: number for number, study in enumerate(studies)}
        more = sorted(more, key=lambda one: order[one.study_instance_uid])
        self._jobs += more
        return more

    def renew(self, now: datetime) -> None:
        """Renew the lease, once a third is over; by any thread.

        A search takes longer than a lease where workers die of it, or an object has many
        frames. Nobody else is to begin it meanwhile.

        Args:
            now: Aware.

        Raises:
            SpoolError: The queue cannot be used.
        """
        if now - self._renewed < LEASE / 3 or now - self._since > LONGEST:
            return
        self._queue.renew(list(self._jobs), now + LEASE)
        self._renewed = now  # where that fails, it is tried again at once

    def put_back(self, not_before: datetime) -> None:
        """Put all of it back; what is settled stays so.

        What was not begun has cost no attempt.

        Args:
            not_before: When it is due again.

        Raises:
            SpoolError: The queue cannot be used yet.
        """
        for job in self._jobs:
            is_free = job.id not in self._begun
            self._queue.retry(job, not_before, "", is_free=is_free)
        self.clear()

    def clear(self) -> None:
        """Note that the queue has been told of all of it."""
        self._jobs = []

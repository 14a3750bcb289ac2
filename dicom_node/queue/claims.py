"""Who has a job, and what becomes of it: a claim lasts as long as its lease.

A claim is lost when its lease runs out and another takes the job, or all are put
back. Whoever comes with one that was lost changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime, timedelta

    from dicom_node.queue.job import Job


class Resting(NamedTuple):
    """Whose jobs are not claimed for now."""

    routes: frozenset[str] = frozenset()
    destinations: frozenset[str] = frozenset()


NOBODY: Final = Resting()
"""Rests: every job that is due may be claimed."""


class Claims(Protocol):
    """Gives out jobs that are due, each to one worker at a time, and settles them."""

    def claim(
        self, now: datetime, lease: timedelta, resting: Resting = NOBODY
    ) -> Job | None:
        """Return the most urgent job that is due, leased until ``now + lease``.

        Of those of one priority, the one that has been due longest. However many wait
        for whoever rests, or for their time, finding it takes no longer.
        """
        ...

    def claim_more(
        self,
        like: Job,
        now: datetime,
        lease: timedelta,
        count: int,
        resting: Resting = NOBODY,
    ) -> list[Job]:
        """Return jobs that were never tried: first those of a study, then others.

        What was tried before may have killed its worker, and is claimed alone.

        Args:
            like: Of whose route and destination; those of its study come first, in the
                order in which they are due, then those of its priority.
            now: Aware.
            lease: Until ``now + lease``.
            count: At most.
            resting: Whose jobs are left alone.
        """
        ...

    def renew(self, jobs: Sequence[Job], until: datetime) -> None:
        """Lease claimed jobs until then; nothing happens to a claim that was lost."""
        ...

    def upcoming(self, like: Job, now: datetime, count: int) -> list[Job]:
        """Return jobs that are likely to be claimed next, as they stand; none is claimed.

        What was tried before is not among them, nor what is made ready already, for
        whatever destination of the route. Where nodes share the queue there are none:
        what is next there may be another's.

        Args:
            like: Of whose route, destination and priority.
            now: Aware.
            count: How many are looked at.
        """
        ...

    def adopt(self, job: Job, purpose: str) -> str | None:
        """Let ``job`` send what was made of the same instance on the same route.

        What was made ready for another destination of a route that marks is for all of
        them, so that they are sent the same object.

        Args:
            job: A claimed one that is not ready.
            purpose: What it is to be remembered as made for; of others, that which has
                the same first word is taken.

        Returns:
            Its name in the spool; None if there is none, or the claim was lost.
        """
        ...

    def keep_filtered(
        self, job: Job, file: str, purpose: str, *, lasts: bool = True
    ) -> bool:
        """Remember what ``job`` is to send, so that a retry sends the same bytes.

        Args:
            job: A claimed one.
            file: What it is to send.
            purpose: What that was made for.
            lasts: False for what is made again, the same, after a power cut.

        Returns:
            False if the claim has been lost to another: then nothing may be sent.
        """
        ...

    def sent(
        self, jobs: Sequence[Job], now: datetime, receivers: Sequence[str] = ()
    ) -> list[bool]:
        """Settle each of ``jobs``; False for a claim that was lost to another.

        Args:
            jobs: Claimed ones.
            now: Aware.
            receivers: Who has each: a member, where a job names a pool. Empty where
                each has gone to whom its job names.
        """
        ...

    def dropped(self, job: Job, reason: str) -> bool:
        """Settle ``job`` unsent; False if the claim has been lost to another."""
        ...

    def retry(
        self,
        job: Job,
        not_before: datetime,
        reason: str,
        *,
        is_fault: bool = False,
        is_free: bool = False,
    ) -> bool:
        """Put ``job`` back; False if the claim has been lost to another.

        Args:
            job: A claimed one.
            not_before: When it is due again.
            reason: For people.
            is_fault: Whether to count it among the job's faults.
            is_free: Whether this attempt is not counted: it was none.
        """
        ...

    def give_back(self, jobs: Sequence[Job], now: datetime) -> list[bool]:
        """Put back ``jobs`` that were not begun, due ``now``; nothing is counted.

        Returns:
            For each: False for a claim that was lost to another.
        """
        ...

    def hold(self, job: Job, reason: str) -> bool:
        """Hold ``job``; False if the claim has been lost to another."""
        ...

    def quarantine(self, job: Job, reason: str) -> bool:
        """Quarantine ``job``; False if the claim has been lost to another."""
        ...

    def release_claims(
        self, not_before: datetime, *, suspects: Collection[int] = ()
    ) -> int:
        """Put back every claimed job; only for whoever is the only worker of its lanes.

        Args:
            not_before: When they are due again.
            suspects: Numbers of the jobs that their worker died at: that is counted.

        Returns:
            How many there were.
        """
        ...

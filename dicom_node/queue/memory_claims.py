"""How jobs in memory are claimed, under a lease, and settled.

A claim is known by its number: whoever comes with one that was lost changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dicom_node.queue.claims import NOBODY
from dicom_node.queue.job import Job, JobState
from dicom_node.queue.memory_jobs import MemoryJobs

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime, timedelta

    from dicom_node.queue.claims import Resting
    from dicom_node.queue.memory_jobs import MemoryJob

_WENT: Final = frozenset({JobState.SENT, JobState.UNCOMMITTED})


@dataclass
class MemoryClaims(MemoryJobs):
    """Claims, and what ends them; see :class:`dicom_node.queue.claims.Claims`."""

    passed: Collection[str] = ()
    """Routes that send instances as they came."""

    def claim(
        self, now: datetime, lease: timedelta, resting: Resting = NOBODY
    ) -> Job | None:
        """Return the most urgent job that is due; see the protocol."""
        due = [owed for owed in self._jobs if owed.is_due(now, resting)]
        return self._claimed(min(due, key=_turn), now + lease) if due else None

    def claim_more(
        self,
        like: Job,
        now: datetime,
        lease: timedelta,
        count: int,
        resting: Resting = NOBODY,
    ) -> list[Job]:
        """Return jobs that were never claimed; see the protocol."""
        due = [
            owed
            for owed in self._jobs
            if owed.is_due(now, resting)
            and owed.attempts == owed.crashes == 0
            and owed.to[:2] == (like.route, like.destination)
            and (
                self._study(owed) == like.study_instance_uid
                or owed.to.priority == like.priority
            )
        ]
        due.sort(key=lambda o: (self._study(o) != like.study_instance_uid, _turn(o)))
        return [self._claimed(owed, now + lease) for owed in due[:count]]

    def renew(self, jobs: Sequence[Job], until: datetime) -> None:
        """Lease claimed jobs until then; see the protocol."""
        for job in jobs:
            owed = self._jobs[job.id - 1]
            if owed.state is JobState.WORKING and owed.claim == job.claim:
                owed.lease_until = until

    def upcoming(self, like: Job, now: datetime, count: int) -> list[Job]:
        """Return jobs that are likely to be claimed next; see the protocol."""
        waiting = [
            owed
            for owed in self._jobs
            if owed.state is JobState.WAITING
            and owed.is_due(now, NOBODY)
            and owed.to[:3] == (like.route, like.destination, like.priority)
        ]
        made = {(o.instance, o.to.route) for o in self._jobs if o.filtered is not None}
        return [
            self._as_it_stands(owed)
            for owed in sorted(waiting, key=_turn)[:count]
            if owed.attempts == owed.crashes == 0
            and (owed.instance, owed.to.route) not in made
        ]

    def adopt(self, job: Job, purpose: str) -> str | None:
        """Let ``job`` send what another has; see the protocol."""
        kind = purpose.split(" ", maxsplit=1)[0]
        for other in self._jobs:
            if (
                (other.instance, other.to.route) == (job.instance_id, job.route)
                and other.filtered is not None
                and (other.purpose or "").split(" ")[0] == kind
                and self.keep_filtered(job, other.filtered, purpose)
            ):
                return other.filtered
        return None

    def keep_filtered(
        self,
        job: Job,
        file: str,
        purpose: str,
        *,
        lasts: bool = True,  # noqa: ARG002 nothing here does
    ) -> bool:
        """Remember what ``job`` is to send; see the protocol."""
        owed = self._jobs[job.id - 1]
        if owed.state is not JobState.WORKING or owed.claim != job.claim:
            return False
        owed.filtered, owed.purpose = file, purpose
        return True

    def sent(
        self, jobs: Sequence[Job], now: datetime, receivers: Sequence[str] = ()
    ) -> list[bool]:
        """Settle each of ``jobs``; see the protocol."""
        are_settled = [self._settle(job, JobState.SENT, "") for job in jobs]
        names = receivers or [""] * len(jobs)
        for job, is_settled, name in zip(jobs, are_settled, names, strict=True):
            if is_settled:
                self._jobs[job.id - 1].receiver = name
                self._went(job.id, now)
        return are_settled

    def dropped(self, job: Job, reason: str) -> bool:
        """Settle ``job`` unsent; see the protocol."""
        return self._settle(job, JobState.DROPPED, reason)

    def retry(
        self,
        job: Job,
        not_before: datetime,
        reason: str,
        *,
        is_fault: bool = False,
        is_free: bool = False,
    ) -> bool:
        """Put ``job`` back; see the protocol."""
        if not self._settle(job, JobState.WAITING, reason):
            return False
        self._jobs[job.id - 1].attempts -= is_free
        self._jobs[job.id - 1].not_before = not_before
        self._jobs[job.id - 1].faults += is_fault
        return True

    def give_back(self, jobs: Sequence[Job], now: datetime) -> list[bool]:
        """Put back ``jobs`` that were not begun; see the protocol."""
        return [self.retry(job, now, "", is_free=True) for job in jobs]

    def hold(self, job: Job, reason: str) -> bool:
        """Hold ``job``; see the protocol."""
        return self._settle(job, JobState.HELD, reason)

    def quarantine(self, job: Job, reason: str) -> bool:
        """Quarantine ``job``; see the protocol."""
        return self._settle(job, JobState.QUARANTINED, reason)

    def release_claims(
        self, not_before: datetime, *, suspects: Collection[int] = ()
    ) -> int:
        """Put back every claimed job; see the protocol."""
        claimed = [o for o in self._jobs if o.state is JobState.WORKING]
        for owed in claimed:
            owed.state, owed.lease_until = JobState.WAITING, None
            owed.crashes += owed.id in suspects
            owed.not_before = not_before
        return len(claimed)

    def _claimed(self, owed: MemoryJob, until: datetime) -> Job:
        owed.crashes += owed.state is JobState.WORKING and not self._is_made(owed)
        owed.state, owed.lease_until = JobState.WORKING, until
        owed.attempts += 1
        owed.claim += 1
        return self._as_it_stands(owed)

    def _is_made(self, owed: MemoryJob) -> bool:
        return owed.filtered is not None or owed.to.route in self.passed

    def _as_it_stands(self, owed: MemoryJob) -> Job:
        arrival = self._instances[owed.instance]
        return Job(
            id=owed.id,
            instance_id=owed.instance,
            sop_instance_uid=arrival.sop_instance_uid,
            file=arrival.file,
            filtered=owed.filtered,
            purpose=owed.purpose,
            route=owed.to.route,
            destination=owed.to.destination,
            study_instance_uid=arrival.study_instance_uid,
            priority=owed.to.priority,
            attempts=owed.attempts,
            claim=owed.claim,
            crashes=owed.crashes,
            faults=owed.faults,
            calling_ae_title=arrival.calling_ae_title,
            order=owed.order,
        )

    def _settle(self, job: Job, state: JobState, reason: str) -> bool:
        owed = self._jobs[job.id - 1]
        if owed.state is not JobState.WORKING or owed.claim != job.claim:
            return False
        owed.state, owed.lease_until, owed.reason = state, None, reason
        owed.is_ordered = owed.order is not None and state in _WENT
        if owed.order is not None and state is not JobState.WAITING:
            owed.order, owed.to = None, owed.to._replace(priority=owed.calm)
        return True

    def _went(self, job_id: int, now: datetime) -> None:
        """Note what is settled as sent."""
        owed = self._jobs[job_id - 1]
        owed.state, owed.settled = JobState.SENT, now
        action = (owed.purpose or "pass").split(" ", maxsplit=1)[0]
        if owed.is_ordered:
            action = "break-glass"
        arrival, to = self._instances[owed.instance], owed.to
        peer = owed.receiver or to.destination
        self._notes.note(self._noted(arrival, "sent", peer, to.route, action), now)


def _turn(owed: MemoryJob) -> tuple[int, datetime, int]:
    """Return what jobs are sorted by."""
    return -owed.to.priority, owed.not_before, owed.id

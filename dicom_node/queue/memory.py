"""The same queue in memory, for tests and dry runs. It survives nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from dicom_node.queue.job import Arrival, Held, Job, JobState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta


_SETTLED: Final = frozenset({JobState.SENT, JobState.DROPPED})


@dataclass(slots=True)
class _Owed:
    id: int
    instance: int
    route: str
    not_before: datetime
    state: JobState = JobState.WAITING
    attempts: int = 0
    lease_until: datetime | None = None
    filtered: str | None = None
    purpose: str | None = None
    reason: str = ""

    def is_due(self, now: datetime) -> bool:
        if self.state is JobState.WORKING:
            return self.lease_until is not None and self.lease_until <= now
        return self.state is JobState.WAITING and self.not_before <= now


@dataclass(slots=True)
class MemoryQueue:
    """See :class:`dicom_node.queue.job.Queue`."""

    _instances: dict[int, Arrival] = field(default_factory=dict)
    _forgotten: set[int] = field(default_factory=set)
    _jobs: list[_Owed] = field(default_factory=list)

    def add(self, arrival: Arrival, routes: Sequence[str], now: datetime) -> bool:
        """Owe ``arrival`` to each of ``routes``; see the protocol."""
        number = next(
            (
                n
                for n, known in self._instances.items()
                if n not in self._forgotten and known[:2] == arrival[:2]
            ),
            0,
        )
        is_new = number == 0
        if is_new:
            number = len(self._instances) + 1
            self._instances[number] = arrival
        for route in routes:
            still = [
                o
                for o in self._jobs
                if (o.instance, o.route) == (number, route) and o.state not in _SETTLED
            ]
            if not still:
                self._jobs.append(_Owed(len(self._jobs) + 1, number, route, now))
            for owed in still:
                self.release(owed.id, now)
        return is_new

    def claim(self, now: datetime, lease: timedelta) -> Job | None:
        """Return the job that has been due longest; see the protocol."""
        due = [owed for owed in self._jobs if owed.is_due(now)]
        if not due:
            return None
        owed = min(due, key=lambda o: (o.not_before, o.id))
        owed.state, owed.lease_until = JobState.WORKING, now + lease
        owed.attempts += 1
        arrival = self._instances[owed.instance]
        return Job(
            id=owed.id,
            instance_id=owed.instance,
            sop_instance_uid=arrival.sop_instance_uid,
            file=arrival.file,
            filtered=owed.filtered,
            purpose=owed.purpose,
            route=owed.route,
            attempts=owed.attempts,
        )

    def keep_filtered(self, job: Job, file: str, purpose: str) -> None:
        """Remember what ``job`` is to send; see the protocol."""
        owed = self._jobs[job.id - 1]
        if owed.attempts == job.attempts:
            owed.filtered, owed.purpose = file, purpose

    def sent(self, job: Job) -> bool:
        """Settle ``job``; see the protocol."""
        return self._settle(job, JobState.SENT, "")

    def dropped(self, job: Job, reason: str) -> bool:
        """Settle ``job`` unsent; see the protocol."""
        return self._settle(job, JobState.DROPPED, reason)

    def retry(self, job: Job, not_before: datetime, reason: str) -> bool:
        """Put ``job`` back; see the protocol."""
        if not self._settle(job, JobState.WAITING, reason):
            return False
        self._jobs[job.id - 1].not_before = not_before
        return True

    def hold(self, job: Job, reason: str) -> bool:
        """Hold ``job``; see the protocol."""
        return self._settle(job, JobState.HELD, reason)

    def release_claims(self, not_before: datetime) -> int:
        """Put back every claimed job; see the protocol."""
        claimed = [o for o in self._jobs if o.state is JobState.WORKING]
        for owed in claimed:
            owed.state, owed.lease_until = JobState.WAITING, None
            owed.not_before = not_before
        return len(claimed)

    def forget_sent(self) -> list[str]:
        """Forget files that are owed to nobody; see the protocol."""
        names: list[str] = []
        for owed in self._jobs:
            if owed.state in _SETTLED and owed.filtered is not None:
                names.append(owed.filtered)
                owed.filtered = None
        for number, arrival in self._instances.items():
            open_jobs = [
                o
                for o in self._jobs
                if o.instance == number and o.state not in _SETTLED
            ]
            if not open_jobs and number not in self._forgotten:
                self._forgotten.add(number)
                names.append(arrival.file)
        return names

    def files(self) -> set[str]:
        """Return the names of all files that are still needed."""
        kept = {a.file for n, a in self._instances.items() if n not in self._forgotten}
        return kept | {o.filtered for o in self._jobs if o.filtered is not None}

    def counts(self) -> dict[JobState, int]:
        """Return how many jobs stand where."""
        states = [owed.state for owed in self._jobs]
        return {state: states.count(state) for state in JobState}

    def held(self) -> list[Held]:
        """Return every held job."""
        return [
            Held(o.id, self._instances[o.instance].sop_instance_uid, o.route, o.reason)
            for o in self._jobs
            if o.state is JobState.HELD
        ]

    def release(self, job_id: int, now: datetime) -> bool:
        """Wake a held job; see the protocol."""
        for owed in self._jobs:
            if owed.id == job_id and owed.state is JobState.HELD:
                owed.state, owed.attempts, owed.reason = JobState.WAITING, 0, ""
                owed.not_before = now
                return True
        return False

    def _settle(self, job: Job, state: JobState, reason: str) -> bool:
        owed = self._jobs[job.id - 1]
        if owed.state is not JobState.WORKING or owed.attempts != job.attempts:
            return False
        owed.state, owed.lease_until, owed.reason = state, None, reason
        return True

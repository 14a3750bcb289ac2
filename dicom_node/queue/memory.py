"""The same queue in memory, for tests and dry runs. It survives nothing.

Here instances come in, are counted and are forgotten. How jobs are claimed, what people
order of them and which wait for their study stand in modules of their own, as they do
for a queue in a database.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dicom_node.queue.arrival import CLASHES, Arrival, Taken
from dicom_node.queue.job import Held, JobState
from dicom_node.queue.memory_claims import MemoryClaims
from dicom_node.queue.memory_jobs import SETTLED, MemoryJob
from dicom_node.queue.memory_orders import MemoryOrders
from dicom_node.queue.memory_studies import MemoryStudies
from dicom_node.queue.tally import LATELY, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from dicom_node.queue.arrival import Owed
    from dicom_node.queue.job import OfInstance
    from dicom_node.queue.memory_notes import MemoryNotes

_PENDING: Final = frozenset({JobState.WAITING, JobState.WORKING})
_FOR_PEOPLE: Final = frozenset({JobState.HELD, JobState.QUARANTINED})


@dataclass
class MemoryQueue(MemoryClaims, MemoryOrders, MemoryStudies):
    """See :class:`dicom_node.queue.protocol.Queue`."""

    def notes(self) -> MemoryNotes:
        """Return what came in and went out."""
        return self._notes

    def add(
        self,
        arrival: Arrival,
        owed: Sequence[Owed],
        now: datetime,
        sent_after: datetime | None = None,
        is_kept: Callable[[str], bool] = lambda _: True,
    ) -> Taken:
        """Owe ``arrival`` to each of ``owed``; see the protocol."""
        after = now if sent_after is None else sent_after
        file = self._file_of(arrival)
        lost = None if file is None or is_kept(file) else file
        same = self._same(arrival)
        number = same[-1] if same else len(self._instances) + 1
        last = {
            job.to[:2]: job
            for job in self._jobs
            if job.instance == number and not job.is_over(after)
        }
        wanted = [to for to in owed if to[:2] not in last]
        for to in owed:
            if to[:2] in last and last[to[:2]].state is JobState.HELD:
                self.release(last[to[:2]].id, now)
        clashes = any(self._clashes(arrival, to.route, after) for to in wanted)
        is_lost = lost is not None and self._file_of(arrival) == lost
        is_open = any(o.instance == number and not o.is_over(now) for o in self._jobs)
        needs_file = bool(wanted) and (not same or number in self._forgotten)
        needs_file |= is_lost and (bool(wanted) or is_open)
        if needs_file:
            self._instances[number] = arrival
            if not same:
                self._received[number] = now
                note = self._noted(arrival, "received", arrival.calling_ae_title)
                self._notes.note(note, now)
            self._forgotten.discard(number)
        due: dict[str, datetime] = {}
        for to in wanted:
            if to.route not in due:
                due[to.route] = now if clashes else self._due(to, arrival, now)
            job = MemoryJob(len(self._jobs) + 1, number, to, due[to.route], now)
            if clashes:
                job.state, job.reason = JobState.QUARANTINED, CLASHES
            self._jobs.append(job)
        clashed = any(
            (o.instance, o.state, o.reason) == (number, JobState.QUARANTINED, CLASHES)
            for o in self._jobs
        )
        if clashes or (clashed and not wanted):
            return Taken.CLASHING if needs_file else Taken.CLASHING_AGAIN
        return Taken.OWED if needs_file else Taken.KNOWN

    def _same(self, arrival: Arrival) -> list[int]:
        return [
            number
            for number, known in self._instances.items()
            if known[:2] == arrival[:2] and number not in self._purged
        ]

    def _file_of(self, arrival: Arrival) -> str | None:
        """Return the file that the same bytes should have, if any."""
        there = [n for n in self._same(arrival)[-1:] if n not in self._forgotten]
        return self._instances[there[0]].file if there else None

    def _clashes(self, arrival: Arrival, route: str, sent_after: datetime) -> bool:
        others = {
            number
            for number, known in self._instances.items()
            if known.sop_instance_uid == arrival.sop_instance_uid
            and known.digest != arrival.digest
            and number not in self._purged
        }
        return any(
            owed.instance in others
            and owed.to.route == route
            and (owed.state, owed.reason) != (JobState.QUARANTINED, CLASHES)
            and not owed.is_over(sent_after)
            for owed in self._jobs
        )

    def forget_sent(self, jobs: Sequence[OfInstance] | None = None) -> list[str]:
        """Forget files that are owed to nobody; see the protocol."""
        names: list[str] = []
        only = self._instances.keys() if jobs is None else {j.instance_id for j in jobs}
        opened = [o for o in self._jobs if o.state not in SETTLED]
        needed = {o.filtered for o in opened}
        may_send = {(o.instance, o.to.route) for o in opened if o.filtered is None}
        for owed in self._jobs:
            if owed.instance not in only:
                continue
            if owed.state in SETTLED and owed.filtered is not None:
                is_mark = (owed.purpose or "").startswith("mark ")
                if is_mark and (owed.instance, owed.to.route) in may_send:
                    continue
                if owed.filtered not in needed | set(names):
                    names.append(owed.filtered)
                owed.filtered = None
        for number in only:
            arrival = self._instances[number]
            open_jobs = [
                o for o in self._jobs if o.instance == number and o.state not in SETTLED
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

    def tallies(self, now: datetime) -> list[Tally]:
        """Return one for each route and destination; see the protocol."""
        until = now.replace(second=0, microsecond=0)
        since = until - LATELY
        found: dict[tuple[str, str], list[MemoryJob]] = {}
        for job in self._jobs:
            found.setdefault((job.to.route, job.to.destination), []).append(job)
        return [
            Tally(
                route=route,
                destination=destination,
                received=len(jobs),
                **Counter(job.state.value for job in jobs),
                oldest=min(
                    (j.received for j in jobs if j.state in _PENDING), default=None
                ),
                received_lately=sum(since <= job.received < until for job in jobs),
                sent_lately=sum(
                    job.settled is not None and since <= job.settled < until
                    for job in jobs
                ),
            )
            for (route, destination), jobs in sorted(found.items())
        ]

    def purge(self, before: datetime, count: int = 500) -> int:
        """Forget instances of long ago; see the protocol."""
        gone: list[int] = []
        for number in sorted(self._forgotten - self._purged):
            jobs = [job for job in self._jobs if job.instance == number]
            is_over = all(job.state in SETTLED and not job.filtered for job in jobs)
            moments = [m for job in jobs for m in (job.received, job.settled) if m]
            # The last stays, as it does in a file.
            if is_over and max(moments) <= before and number < len(self._instances):
                gone.append(number)
        self._purged.update(gone[:count])
        return len(gone[:count])

    def owed(self) -> dict[str, int]:
        """Return how many jobs of each route are not settled; see the protocol."""
        return dict(Counter(o.to.route for o in self._jobs if o.state not in SETTLED))

    def held(self, state: JobState = JobState.HELD) -> list[Held]:
        """Return every job that is held, or quarantined."""
        return [
            Held(
                o.id,
                self._instances[o.instance].sop_instance_uid,
                o.to.route,
                o.to.destination,
                o.reason,
            )
            for o in self._jobs
            if o.state is state
        ]

    def waiting_since(self) -> datetime | None:
        """Return when what waits longest came in."""
        waiting = {JobState.WAITING, JobState.WORKING}
        owed = [job.instance for job in self._jobs if job.state in waiting]
        return min((self._received[number] for number in owed), default=None)

    def release(self, job_id: int, now: datetime) -> bool:
        """Wake a job; see the protocol."""
        for owed in self._jobs:
            if owed.id == job_id and owed.state in _FOR_PEOPLE:
                owed.state, owed.attempts, owed.reason = JobState.WAITING, 0, ""
                owed.crashes = owed.faults = 0
                owed.not_before = now
                return True
        return False

    def discard(self, job_id: int, reason: str) -> bool:
        """Drop a job; see the protocol."""
        for owed in self._jobs:
            if owed.id == job_id and owed.state in _FOR_PEOPLE:
                owed.state, owed.reason = JobState.DROPPED, reason
                return True
        return False

"""The same queue in memory, for tests and dry runs. It survives nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from dicom_node.queue.job import (
    CLASHES,
    NOBODY,
    Arrival,
    Held,
    Job,
    JobState,
    OfInstance,
    Owed,
    Resting,
    Taken,
)
from dicom_node.queue.memory_notes import MemoryNotes
from dicom_node.queue.note import Note
from dicom_node.queue.order import BROKEN_GLASS, HeldRoute, Order, Standing
from dicom_node.queue.study import NOT_YET, Stage, Study, arrived
from dicom_node.queue.tally import LATELY, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime, timedelta


_SETTLED: Final = frozenset({JobState.SENT, JobState.DROPPED})
_WENT: Final = frozenset({JobState.SENT, JobState.UNCOMMITTED})
_PENDING: Final = frozenset({JobState.WAITING, JobState.WORKING})
_OPEN: Final = frozenset({JobState.WAITING, JobState.HELD})
_FOR_PEOPLE: Final = frozenset({JobState.HELD, JobState.QUARANTINED})


@dataclass(slots=True)
class _Job:
    id: int
    instance: int
    to: Owed
    not_before: datetime
    received: datetime
    state: JobState = JobState.WAITING
    attempts: int = 0
    lease_until: datetime | None = None
    filtered: str | None = None
    purpose: str | None = None
    reason: str = ""
    claim: int = 0
    crashes: int = 0
    faults: int = 0
    settled: datetime | None = None
    receiver: str = ""
    is_ordered: bool = False
    """Whether it left as it came by an order, which is over."""
    order: Order | None = None
    calm: int = 0
    """Its priority before there was an order."""

    def is_over(self, sent_after: datetime) -> bool:
        """Say whether the same bytes are owed anew."""
        if self.state is JobState.SENT:
            return self.settled is None or self.settled <= sent_after
        return self.state is JobState.DROPPED

    def is_due(self, now: datetime, resting: Resting) -> bool:
        if self.to.route in resting.routes and self.order is None:
            return False
        if self.to.destination in resting.destinations:
            return False
        if self.state is JobState.WORKING:
            return self.lease_until is not None and self.lease_until <= now
        return self.state is JobState.WAITING and self.not_before <= now


@dataclass(slots=True)
class MemoryQueue:
    """See :class:`dicom_node.queue.job.Queue`."""

    _instances: dict[int, Arrival] = field(default_factory=dict)
    _forgotten: set[int] = field(default_factory=set)
    _purged: set[int] = field(default_factory=set)
    _jobs: list[_Job] = field(default_factory=list)
    _received: dict[int, datetime] = field(default_factory=dict)
    _notes: MemoryNotes = field(default_factory=MemoryNotes)
    _held: dict[str, HeldRoute] = field(default_factory=dict)
    _studies: dict[tuple[str, str], Study] = field(default_factory=dict)
    passed: Collection[str] = ()
    """Routes that send instances as they came."""

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
            job = _Job(len(self._jobs) + 1, number, to, due[to.route], now)
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

    def _is_made(self, owed: _Job) -> bool:
        return owed.filtered is not None or owed.to.route in self.passed

    def _study(self, owed: _Job) -> str:
        return self._instances[owed.instance].study_instance_uid

    def _claimed(self, owed: _Job, until: datetime) -> Job:
        owed.crashes += owed.state is JobState.WORKING and not self._is_made(owed)
        owed.state, owed.lease_until = JobState.WORKING, until
        owed.attempts += 1
        owed.claim += 1
        return self._as_it_stands(owed)

    def _as_it_stands(self, owed: _Job) -> Job:
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

    @staticmethod
    def _noted(
        arrival: Arrival, kind: str, peer: str, route: str = "", action: str = ""
    ) -> Note:
        study, patient = arrival.study_instance_uid, arrival.patient
        return Note(kind, peer, route, action, study, patient, arrival.sop_class_uid)

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

    def forget_sent(self, jobs: Sequence[OfInstance] | None = None) -> list[str]:
        """Forget files that are owed to nobody; see the protocol."""
        names: list[str] = []
        only = self._instances.keys() if jobs is None else {j.instance_id for j in jobs}
        opened = [o for o in self._jobs if o.state not in _SETTLED]
        needed = {o.filtered for o in opened}
        may_send = {(o.instance, o.to.route) for o in opened if o.filtered is None}
        for owed in self._jobs:
            if owed.instance not in only:
                continue
            if owed.state in _SETTLED and owed.filtered is not None:
                is_mark = (owed.purpose or "").startswith("mark ")
                if is_mark and (owed.instance, owed.to.route) in may_send:
                    continue
                if owed.filtered not in needed | set(names):
                    names.append(owed.filtered)
                owed.filtered = None
        for number in only:
            arrival = self._instances[number]
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

    def tallies(self, now: datetime) -> list[Tally]:
        """Return one for each route and destination; see the protocol."""
        until = now.replace(second=0, microsecond=0)
        since = until - LATELY
        found: dict[tuple[str, str], list[_Job]] = {}
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
            is_over = all(job.state in _SETTLED and not job.filtered for job in jobs)
            moments = [m for job in jobs for m in (job.received, job.settled) if m]
            # The last stays, as it does in a file.
            if is_over and max(moments) <= before and number < len(self._instances):
                gone.append(number)
        self._purged.update(gone[:count])
        return len(gone[:count])

    def owed(self) -> dict[str, int]:
        """Return how many jobs of each route are not settled; see the protocol."""
        return dict(Counter(o.to.route for o in self._jobs if o.state not in _SETTLED))

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

    def _settle(self, job: Job, state: JobState, reason: str) -> bool:
        owed = self._jobs[job.id - 1]
        if owed.state is not JobState.WORKING or owed.claim != job.claim:
            return False
        owed.state, owed.lease_until, owed.reason = state, None, reason
        owed.is_ordered = owed.order is not None and state in _WENT
        if owed.order is not None and state is not JobState.WAITING:
            owed.order, owed.to = None, owed.to._replace(priority=owed.calm)
        return True

    def standing(self, job_id: int) -> Standing | None:
        """Return where a job stands; see the protocol."""
        for owed in self._jobs:
            if owed.id == job_id:
                uid = self._instances[owed.instance].sop_instance_uid
                return Standing(job_id, uid, *owed.to[:2], owed.state, owed.to.priority)
        return None

    def standing_of_study(self, study_instance_uid: str) -> list[Standing]:
        """Return where the jobs of a study stand; see the protocol."""
        found = [
            self.standing(owed.id)
            for owed in self._jobs
            if self._study(owed) == study_instance_uid and owed.state not in _SETTLED
        ]
        return [one for one in found if one is not None]

    def prioritise(self, job_id: int, priority: int) -> bool:
        """Say how urgent a job is; see the protocol."""
        for owed in self._jobs:
            if owed.id == job_id and owed.state in _OPEN and owed.order is None:
                owed.to = owed.to._replace(priority=priority)
                return True
        return False

    def break_glass(self, job_id: int, order: Order) -> bool:
        """Order a job to send its instance as it came; see the protocol."""
        for owed in self._jobs:
            if owed.id != job_id or owed.state not in _OPEN:
                continue
            if owed.order is None:
                owed.calm = owed.to.priority
            else:
                order = order._replace(receiver=owed.order.receiver)
            owed.order, owed.to = order, owed.to._replace(priority=BROKEN_GLASS)
            owed.state, owed.attempts, owed.reason = JobState.WAITING, 0, ""
            owed.crashes = owed.faults = 0
            owed.not_before = order.at
            return True
        return False

    def bind(self, job: Job, receiver: str) -> None:
        """Remember who may have what a job sends; see the protocol."""
        owed = self._jobs[job.id - 1]
        if owed.order is None or owed.claim != job.claim:
            return
        if owed.state is JobState.WORKING:
            owed.order = owed.order._replace(receiver=receiver)

    def hold_route(self, held: HeldRoute) -> bool:
        """Let the jobs of a route wait; see the protocol."""
        return self._held.setdefault(held.route, held) is held

    def release_route(self, route: str) -> bool:
        """Let them be done again; see the protocol."""
        return self._held.pop(route, None) is not None

    def held_routes(self) -> list[HeldRoute]:
        """Return the routes whose jobs wait; see the protocol."""
        return sorted(self._held.values())

    def _due(self, to: Owed, arrival: Arrival, now: datetime) -> datetime:
        study = arrival.study_instance_uid
        if to.gathering is None or not study:
            return now
        known = self._studies.get((to.route, study))
        after = arrived(known, to.route, study, to.gathering, now)
        self._studies[to.route, study] = after
        if after.stage is not Stage.COMPLETE:
            return NOT_YET
        self._let_go(after, now)
        return now

    def _let_go(self, study: Study, now: datetime) -> None:
        for owed in self._jobs:
            is_its = (owed.to.route, self._study(owed)) == study[:2]
            if is_its and owed.state is JobState.WAITING and owed.not_before == NOT_YET:
                owed.not_before = now

    def complete_studies(self, now: datetime) -> list[Study]:
        """Let the jobs of studies be done; see the protocol."""
        due = [study for study in self.gathering() if study.due <= now]
        for study in due:
            complete = study._replace(stage=Stage.COMPLETE, due=now)
            self._studies[study[:2]] = complete
            self._let_go(complete, now)
        return due

    def gathering(self) -> list[Study]:
        """Return the studies whose jobs wait for more; see the protocol."""
        open_ones = [s for s in self._studies.values() if s.stage is not Stage.COMPLETE]
        return sorted(open_ones, key=lambda study: study.due)

    def forget_studies(self, before: datetime) -> int:
        """Forget studies that were complete; see the protocol."""
        gone = [
            key
            for key, study in self._studies.items()
            if study.stage is Stage.COMPLETE and study.due < before
        ]
        for key in gone:
            del self._studies[key]
        return len(gone)


def _turn(owed: _Job) -> tuple[int, datetime, int]:
    """Return what jobs are sorted by."""
    return -owed.to.priority, owed.not_before, owed.id

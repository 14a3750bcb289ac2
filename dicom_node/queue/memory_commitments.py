"""The same commitments in memory, for tests and dry runs. They survive nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dicom_node.commitment import Request, reason_in_words
from dicom_node.queue.commitments import (
    KEPT,
    Asked,
    Awaited,
    Known,
    Outcome,
    Settled,
    Transaction,
    judged,
    refused_again,
)
from dicom_node.queue.job import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from datetime import datetime

    from dicom_node.commitment import Reference, Report
    from dicom_node.queue.commitments import Sent
    from dicom_node.queue.memory import MemoryQueue


@dataclass(slots=True)
class _Commitment:
    instance_id: int
    destination: str
    study: str
    reference: Reference
    sent: datetime
    due: datetime
    asks: int = 0
    refusals: int = 0
    is_open: bool = True
    reason: str = ""
    asked: list[str] = field(default_factory=list)
    """The last transactions."""


@dataclass(slots=True)
class _Request:
    asked: Asked
    not_before: datetime


@dataclass(slots=True)
class MemoryCommitments:
    """See :class:`dicom_node.queue.commitments.Commitments`."""

    _queue: MemoryQueue
    _open: dict[int, _Commitment] = field(default_factory=dict)
    """By job."""
    _requests: list[_Request] = field(default_factory=list)
    _numbers: int = 0

    def sent(self, sent: Sequence[Sent], now: datetime, ask_at: datetime) -> list[bool]:
        """Note that destinations have instances; see the protocol."""
        return [self._sent(one, now, ask_at) for one in sent]

    def _sent(self, sent: Sent, now: datetime, ask_at: datetime) -> bool:
        job, reference = sent.job, sent.reference
        assert reference is not None  # what is to be kept has a name
        if not self._queue._settle(job, JobState.UNCOMMITTED, ""):  # noqa: SLF001 its twin
            return False
        self._queue._jobs[job.id - 1].receiver = sent.destination  # noqa: SLF001 its twin
        before = self._open.get(job.id)
        self._open[job.id] = _Commitment(
            job.instance_id,
            sent.destination,
            job.study_instance_uid,
            reference,
            now,
            ask_at,
            refusals=before.refusals if before else 0,
        )
        return True

    def due(self, destinations: Collection[str], now: datetime) -> list[str]:
        """Return who is to be asked now; see the protocol."""
        return [name for name in sorted(destinations) if self._due(name, now)]

    def _due(self, destination: str, now: datetime) -> list[_Commitment]:
        return [
            one
            for one in self._open.values()
            if one.is_open and one.destination == destination and one.due <= now
        ]

    def ask(
        self,
        destination: str,
        transaction_uid: str,
        now: datetime,
        again_at: datetime,
        most: int,
    ) -> Transaction | None:
        """Return what is to be asked; see the protocol."""
        due = self._due(destination, now)
        if not due:
            return None
        first = min(due, key=lambda one: one.due)
        asked = [
            one
            for _, one in sorted(self._open.items())
            if one.is_open
            and (one.destination, one.study) == (destination, first.study)
            and (one.due <= now or not one.asks)
        ][:most]
        for one in asked:
            one.asked = [*one.asked, transaction_uid][-KEPT:]
            one.asks, one.due = one.asks + 1, again_at
        references = dict.fromkeys(one.reference for one in asked)
        return Transaction(
            destination,
            Request(transaction_uid, tuple(references)),
            max(one.asks for one in asked),
        )

    def put_off(self, transaction_uid: str, until: datetime, reason: str = "") -> None:
        """Ask again, but not before ``until``; see the protocol."""
        for one in self._open.values():
            if one.is_open and transaction_uid in one.asked:
                one.due, one.reason = until, reason

    def reported(
        self,
        report: Report,
        destinations: Collection[str],
        now: datetime,
        again_at: Callable[[int], datetime | None],
    ) -> Outcome:
        """Settle what is promised; see the protocol."""
        committed, again, held = [], 0, 0
        for reference in report.committed:
            for job_id, one in self._asked_for(report, reference, destinations):
                self._settle(job_id, now)
                committed.append(Settled(one.instance_id))
        for failure in report.failed:
            why = reason_in_words(failure.reason)
            for job_id, one in self._asked_for(report, failure.reference, destinations):
                one.refusals += 1
                when = again_at(one.refusals)
                one.reason = f"its destination will not keep it: {why}"
                if when is None:
                    one.reason = refused_again(one.refusals, why)
                one.is_open = False
                one.asked.clear()
                job = self._queue._jobs[job_id - 1]  # noqa: SLF001 its twin
                job.state = JobState.HELD if when is None else JobState.WAITING
                job.attempts, job.not_before, job.reason = 0, when or now, one.reason
                again += when is not None
                held += when is None
        return Outcome(tuple(committed), again, held)

    def _asked_for(
        self, report: Report, reference: Reference, destinations: Collection[str]
    ) -> list[tuple[int, _Commitment]]:
        return [
            (job_id, one)
            for job_id, one in sorted(self._open.items())
            if one.is_open
            and report.transaction_uid in one.asked
            and one.reference == reference
            and one.destination in destinations
        ]

    def _settle(self, job_id: int, now: datetime) -> None:
        self._queue._went(job_id, now)  # noqa: SLF001 its twin
        del self._open[job_id]

    def give_up(self, asked: Collection[str], now: datetime) -> list[Settled]:
        """Settle what is not asked for any more; see the protocol."""
        given_up = {
            job_id: one
            for job_id, one in self._open.items()
            if one.is_open and one.destination not in asked
        }
        for job_id in given_up:
            self._settle(job_id, now)
        return [Settled(one.instance_id) for one in given_up.values()]

    def awaited(self) -> list[Awaited]:
        """Return what is not promised yet, by destination."""
        return [
            Awaited(
                name,
                len(them),
                min(one.sent for one in them),
                max(one.asks for one in them),
                max(them, key=lambda one: one.asks).reason,
            )
            for name in sorted({one.destination for one in self._open.values()})
            if (
                them := [
                    one
                    for one in self._open.values()
                    if one.is_open and one.destination == name
                ]
            )
        ]

    def take(self, peer: str, request: Request, now: datetime, most: int) -> bool:
        """Note that a peer asks us; see the protocol."""
        uid = request.transaction_uid
        others = [
            one
            for one in self._requests
            if (one.asked.peer, one.asked.request.transaction_uid) != (peer, uid)
        ]
        if sum(one.asked.peer == peer for one in others) >= most:
            return False
        self._requests = others
        self._numbers += 1
        self._requests.append(_Request(Asked(self._numbers, peer, request, 0, ""), now))
        return True

    def peers_to_tell(self, now: datetime) -> list[str]:
        """Return who is to be told something now."""
        return sorted({o.asked.peer for o in self._requests if o.not_before <= now})

    def to_tell(self, peer: str, now: datetime) -> Asked | None:
        """Return what a peer is to be told now, if anything."""
        due = [
            one
            for one in self._requests
            if one.asked.peer == peer and one.not_before <= now
        ]
        return min(due, key=lambda one: one.not_before).asked if due else None

    def told(self, asked: Asked) -> None:
        """Forget what a peer asked: it was told."""
        self._requests = [o for o in self._requests if o.asked.id != asked.id]

    def tell_later(self, asked: Asked, not_before: datetime, reason: str) -> None:
        """Try again to tell a peer."""
        for one in self._requests:
            if one.asked.id == asked.id:
                attempts = one.asked.attempts + 1
                one.asked = one.asked._replace(attempts=attempts, reason=reason)
                one.not_before = not_before

    def untold(self) -> list[Asked]:
        """Return everything that peers have asked and were not told."""
        return [one.asked for one in self._requests]

    def against(
        self, references: Iterable[Reference], is_kept: Callable[[str], bool]
    ) -> list[int | None]:
        """Return of each instance why it is not safe here; see the protocol."""
        return [judged(one, list(self._known(one)), is_kept) for one in references]

    def _known(self, reference: Reference) -> Iterator[Known]:
        queue = self._queue
        for job in queue._jobs:  # noqa: SLF001 its twin
            arrival = queue._instances[job.instance]  # noqa: SLF001 its twin
            if arrival.sop_instance_uid == reference.sop_instance_uid:
                is_there = job.instance not in queue._forgotten  # noqa: SLF001 its twin
                yield Known(
                    arrival.sop_class_uid,
                    arrival.file if is_there else None,
                    job.state,
                    job.reason,
                )

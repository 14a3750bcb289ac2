"""Instances and jobs in memory: what a database has as its tables.

Jobs are numbered from 1, in the order of their list, and instances likewise. None is
ever taken out: what is forgotten, or purged, is only said to be. What becomes of a job
is up to the modules that stand on this one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from dicom_node.queue.job import JobState
from dicom_node.queue.memory_notes import MemoryNotes
from dicom_node.queue.note import Note

if TYPE_CHECKING:
    from datetime import datetime

    from dicom_node.queue.arrival import Arrival, Owed
    from dicom_node.queue.claims import Resting
    from dicom_node.queue.order import Order

SETTLED: Final = frozenset({JobState.SENT, JobState.DROPPED})
"""Where nothing is owed any more."""


@dataclass(slots=True)
class MemoryJob:
    """A job as it stands: :class:`dicom_node.queue.job.Job` is one claim of it."""

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
        """Say whether it may be claimed."""
        if self.to.route in resting.routes and self.order is None:
            return False
        if self.to.destination in resting.destinations:
            return False
        if self.state is JobState.WORKING:
            return self.lease_until is not None and self.lease_until <= now
        return self.state is JobState.WAITING and self.not_before <= now


@dataclass
class MemoryJobs:
    """What a queue in memory knows of what came in, and to whom it is owed."""

    _instances: dict[int, Arrival] = field(default_factory=dict)
    _forgotten: set[int] = field(default_factory=set)
    _purged: set[int] = field(default_factory=set)
    _jobs: list[MemoryJob] = field(default_factory=list)
    _received: dict[int, datetime] = field(default_factory=dict)
    _notes: MemoryNotes = field(default_factory=MemoryNotes)

    def _study(self, owed: MemoryJob) -> str:
        return self._instances[owed.instance].study_instance_uid

    @staticmethod
    def _noted(
        arrival: Arrival, kind: str, peer: str, route: str = "", action: str = ""
    ) -> Note:
        study, patient = arrival.study_instance_uid, arrival.patient
        return Note(kind, peer, route, action, study, patient, arrival.sop_class_uid)

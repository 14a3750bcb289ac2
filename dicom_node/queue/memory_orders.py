"""What people order of a queue in memory: urgency, waiting, leaving as it came.

An order ends where its job is settled, which is not done here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from dicom_node.queue.job import JobState
from dicom_node.queue.memory_jobs import SETTLED, MemoryJobs
from dicom_node.queue.order import BROKEN_GLASS, Standing

if TYPE_CHECKING:
    from dicom_node.queue.job import Job
    from dicom_node.queue.order import HeldRoute, Order

_OPEN: Final = frozenset({JobState.WAITING, JobState.HELD})
"""Where people may order something of a job."""


@dataclass
class MemoryOrders(MemoryJobs):
    """See :class:`dicom_node.queue.order.Orders`."""

    _held: dict[str, HeldRoute] = field(default_factory=dict)

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
            if self._study(owed) == study_instance_uid and owed.state not in SETTLED
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

    def bind(self, job: Job, receiver: str) -> bool:
        """Remember who may have what a job sends; see the protocol."""
        owed = self._jobs[job.id - 1]
        if owed.state is not JobState.WORKING or owed.claim != job.claim:
            return False
        if owed.order is None:
            return False
        owed.order = owed.order._replace(receiver=receiver)
        return True

    def hold_route(self, held: HeldRoute) -> bool:
        """Let the jobs of a route wait; see the protocol."""
        return self._held.setdefault(held.route, held) is held

    def release_route(self, route: str) -> bool:
        """Let them be done again; see the protocol."""
        return self._held.pop(route, None) is not None

    def held_routes(self) -> list[HeldRoute]:
        """Return the routes whose jobs wait; see the protocol."""
        return sorted(self._held.values())

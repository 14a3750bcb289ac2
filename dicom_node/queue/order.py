"""What people order of a queue: what is more urgent, waits, or leaves as it came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from datetime import datetime

    from dicom_node.queue.job import Job, JobState

BROKEN_GLASS: Final = 1_000_000
"""The priority of what is to leave as it came. Ahead of everything, it waits for no route
that rests; only a destination that rests can make it wait."""


class Order(NamedTuple):
    """That an instance is sent as it came, by a route that marks: once, by one job."""

    by: str
    why: str
    at: datetime
    receiver: str = ""
    """Who may have it already, since it was sent there and nobody said that it has not
    arrived: no other is sent it."""


class HeldRoute(NamedTuple):
    """A route whose jobs wait since somebody wanted that."""

    route: str
    by: str
    why: str
    since: datetime


class Standing(NamedTuple):
    """Where a job stands."""

    id: int
    sop_instance_uid: str
    route: str
    destination: str
    state: JobState
    priority: int


class Orders(Protocol):
    """What people order; it survives whoever works."""

    def standing(self, job_id: int) -> Standing | None:
        """Return where a job stands; None if there is none of that number."""
        ...

    def standing_of_study(self, study_instance_uid: str) -> list[Standing]:
        """Return where the jobs of a study stand that are not settled."""
        ...

    def prioritise(self, job_id: int, priority: int) -> bool:
        """Say how urgent a job is; False unless it waits or is held."""
        ...

    def break_glass(self, job_id: int, order: Order) -> bool:
        """Order a job to send its instance as it came; False unless it waits or is held.

        It is due now, before all others. The order ends with the job's being settled,
        held or quarantined, and outlives being put back.
        """
        ...

    def bind(self, job: Job, receiver: str) -> bool:
        """Remember who may have what a claimed job sends by order.

        Returns:
            False if the claim has been lost to another, or there is no order: then
            nothing may be sent as it came.
        """
        ...

    def hold_route(self, held: HeldRoute) -> bool:
        """Let the jobs of a route wait; False if they do already, by somebody's wish."""
        ...

    def release_route(self, route: str) -> bool:
        """Let them be done again; False if nobody had them wait."""
        ...

    def held_routes(self) -> list[HeldRoute]:
        """Return the routes whose jobs wait since somebody wanted that."""
        ...

"""What is owed: one job for each instance, route and destination."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from dicom_node.queue.order import Order


class JobState(StrEnum):
    """Where a job stands."""

    WAITING = "waiting"
    """To be done at its time."""
    WORKING = "working"
    """Some worker has it, under a lease."""
    UNCOMMITTED = "uncommitted"
    """The destination said that it has it, and is to promise that it keeps it."""
    SENT = "sent"
    """The destination said that it has it, and keeps it if it was asked to."""
    DROPPED = "dropped"
    """Settled unsent, as its route says of what it does not mark."""
    HELD = "held"
    """Nothing more happens until a person decides."""
    QUARANTINED = "quarantined"
    """Likewise, and the object itself is suspect: it kills its workers, fails again and
    again, or came in under the name of another."""


class Lane(StrEnum):
    """By which process a job is done: what only passes does not wait for the rest."""

    FILTER = "filter"
    """Its route marks or strips, or is not known any more."""
    PASS = "pass"  # noqa: S105
    """Its route sends instances as they came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One claimed job."""

    id: int
    instance_id: int
    sop_instance_uid: str
    """Of the instance as it came in."""
    file: str
    """As it came in; a name in the spool."""
    filtered: str | None
    """As it is to be sent, once that has been made; a name in the spool."""
    purpose: str | None
    """What :attr:`filtered` was made for: action and destination."""
    route: str
    destination: str
    """As the route names it; empty in a queue of an earlier version, until it is
    assigned."""
    study_instance_uid: str
    priority: int
    attempts: int
    """How often it was claimed since a person let it go, this time included."""
    claim: int
    """How often it was claimed at all: the token of this claim."""
    crashes: int
    """How many workers died at it, as far as ``release_claims`` was told (see
    :mod:`dicom_node.queue.claims`); and how often its lease ran out before it was ready
    to be sent, as what passes always is."""
    faults: int
    """How often it failed in a way that nobody foresaw."""
    calling_ae_title: str = ""
    """Of whoever sent the instance first, as it said; empty if nobody did."""
    marks: bool = False
    """Whether it was taken in to be marked, where other nodes may know its route
    otherwise."""
    order: Order | None = None
    """That the instance is sent as it came, whatever its route does."""


class Held(NamedTuple):
    """A job that waits for a person."""

    id: int
    sop_instance_uid: str
    route: str
    destination: str
    reason: str


class OfInstance(Protocol):
    """What belongs to an instance, as a job does."""

    @property
    def instance_id(self) -> int:
        """Return its number."""
        ...

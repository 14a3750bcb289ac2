"""What is owed: one job for each instance and route."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta


class JobState(StrEnum):
    """Where a job stands."""

    WAITING = "waiting"
    """To be done at its time."""
    WORKING = "working"
    """Some worker has it, under a lease."""
    SENT = "sent"
    """The destination said that it has it."""
    DROPPED = "dropped"
    """Settled unsent, as its route says of what it does not mark."""
    HELD = "held"
    """Nothing more happens until a person decides."""


class Arrival(NamedTuple):
    """An instance that came in, as far as the queue has to know it."""

    sop_instance_uid: str
    digest: bytes
    """SHA-256 of the file; 32 bytes."""
    file: str
    """Its name in the spool."""


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
    attempts: int
    """How often it was claimed, this time included. Also the token of this claim."""


class Held(NamedTuple):
    """A job that waits for a person."""

    id: int
    sop_instance_uid: str
    route: str
    reason: str


class Queue(Protocol):
    """Jobs that survive whoever works on them. Every method is one transaction."""

    def add(self, arrival: Arrival, routes: Sequence[str], now: datetime) -> bool:
        """Owe ``arrival`` to each of ``routes``; it is durable when this returns.

        The same bytes are kept once: routes that are not owed them yet are owed them
        now, and jobs of them that are held are woken.

        Returns:
            False if the same bytes were there, so that the new file is not needed.
        """
        ...

    def claim(self, now: datetime, lease: timedelta) -> Job | None:
        """Return the job that has been due longest, leased until ``now + lease``."""
        ...

    def keep_filtered(self, job: Job, file: str, purpose: str) -> None:
        """Remember what ``job`` is to send, so that a retry sends the same bytes."""
        ...

    def sent(self, job: Job) -> bool:
        """Settle ``job``; False if the claim has been lost to another."""
        ...

    def dropped(self, job: Job, reason: str) -> bool:
        """Settle ``job`` unsent; False if the claim has been lost to another."""
        ...

    def retry(self, job: Job, not_before: datetime, reason: str) -> bool:
        """Put ``job`` back; False if the claim has been lost to another."""
        ...

    def hold(self, job: Job, reason: str) -> bool:
        """Hold ``job``; False if the claim has been lost to another."""
        ...

    def release_claims(self, not_before: datetime) -> int:
        """Put back every claimed job; only for whoever is the only worker.

        Returns:
            How many there were.
        """
        ...

    def forget_sent(self) -> list[str]:
        """Forget files that are owed to nobody any more, and return their names."""
        ...

    def files(self) -> set[str]:
        """Return the names of all files that are still needed."""
        ...

    def counts(self) -> dict[JobState, int]:
        """Return how many jobs stand where; every state is there."""
        ...

    def held(self) -> list[Held]:
        """Return every held job."""
        ...

    def release(self, job_id: int, now: datetime) -> bool:
        """Wake a held job; False if none of that number is held."""
        ...

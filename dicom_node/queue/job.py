"""What is owed: one job for each instance, route and destination."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from dicom_node.queue.order import Orders
from dicom_node.queue.purging import Purging
from dicom_node.queue.study import Studies
from dicom_node.queue.tally import Tallies

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime, timedelta

    from dicom_node.queue.note import Notes
    from dicom_node.queue.order import Order
    from dicom_node.queue.study import Gathering


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


class Taken(StrEnum):
    """What became of an instance that came in."""

    OWED = "owed"
    """Its file is needed now."""
    KNOWN = "known"
    """The same bytes were there, or were sent a while ago: its file is not needed."""
    CLASHING = "clashing"
    """Other bytes came in under the same UID: these are quarantined, and needed."""
    CLASHING_AGAIN = "clashing again"
    """Likewise, and these very bytes are quarantined already: not needed."""

    @property
    def needs_file(self) -> bool:
        """Return whether the file that came in is needed."""
        return self in {Taken.OWED, Taken.CLASHING}


CLASHES: Final = (
    "other bytes under this SOP Instance UID are on their way, or were sent lately"
)
"""Why an instance is quarantined as it comes in."""


class Lane(StrEnum):
    """By which process a job is done: what only passes does not wait for the rest."""

    FILTER = "filter"
    """Its route marks or strips, or is not known any more."""
    PASS = "pass"  # noqa: S105
    """Its route sends instances as they came."""


class Arrival(NamedTuple):
    """An instance that came in, as far as the queue has to know it."""

    sop_instance_uid: str
    digest: bytes
    """SHA-256 of transfer syntax and data set; 32 bytes."""
    file: str
    """Its name in the spool."""
    study_instance_uid: str = ""
    """As the object says; empty if it says none."""
    calling_ae_title: str = ""
    """Of whoever sent it, as it said: for people to look for; it proves nothing."""
    sop_class_uid: str = ""
    """As the object says; empty if it says none."""
    patient: str = ""
    """Whose it is, as the audit is to call them: see :mod:`dicom_node.pseudonyms`."""


class Owed(NamedTuple):
    """To whom an instance is owed, and how urgently."""

    route: str
    destination: str
    priority: int = 0
    """What is higher comes first."""
    gathering: Gathering | None = None
    """How it waits for the rest of its study; None if it does not."""
    marks: bool = False
    """Whether the route marks, by whoever takes it in."""


class Resting(NamedTuple):
    """Whose jobs are not claimed for now."""

    routes: frozenset[str] = frozenset()
    destinations: frozenset[str] = frozenset()


NOBODY: Final = Resting()
"""Rests: every job that is due may be claimed."""


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
    """How many workers died at it, as far as :meth:`Queue.release_claims` was told; and
    how often its lease ran out before it was ready to be sent, as what passes always
    is."""
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


def _all_are(_file: str) -> bool:
    return True


class Queue(Orders, Studies, Tallies, Purging, Protocol):
    """Jobs that survive whoever works on them. Every method is one transaction.

    Several threads may use one that is on disk at the same time.
    """

    def notes(self) -> Notes:
        """Return what came in and went out, for the audit."""
        ...

    def add(
        self,
        arrival: Arrival,
        owed: Sequence[Owed],
        now: datetime,
        sent_after: datetime | None = None,
        is_kept: Callable[[str], bool] = _all_are,
    ) -> Taken:
        """Owe ``arrival`` to each of ``owed``; it is durable when this returns.

        The same bytes are kept once: whoever is not owed them yet is owed them now, and
        jobs of them that are held are woken. Other bytes under the UID of an instance
        that is on its way on one of the routes, waits there for a person, or was sent on
        it lately, are quarantined, for a person to decide; nothing is overwritten.

        Args:
            arrival: What came in.
            owed: To whom it is owed; nobody twice.
            now: Aware.
            sent_after: From when on what was sent is remembered; None for not at all.
            is_kept: Says of a file that should be there whether it is. The same bytes
                take the place of one that is lost.
        """
        ...

    def claim(
        self, now: datetime, lease: timedelta, resting: Resting = NOBODY
    ) -> Job | None:
        """Return the most urgent job that is due, leased until ``now + lease``.

        Of those of one priority, the one that has been due longest. However many wait
        for whoever rests, or for their time, finding it takes no longer.
        """
        ...

    def claim_more(
        self,
        like: Job,
        now: datetime,
        lease: timedelta,
        count: int,
        resting: Resting = NOBODY,
    ) -> list[Job]:
        """Return jobs that were never tried: first those of a study, then others.

        What was tried before may have killed its worker, and is claimed alone.

        Args:
            like: Of whose route and destination; those of its study come first, in the
                order in which they are due, then those of its priority.
            now: Aware.
            lease: Until ``now + lease``.
            count: At most.
            resting: Whose jobs are left alone.
        """
        ...

    def renew(self, jobs: Sequence[Job], until: datetime) -> None:
        """Lease claimed jobs until then; nothing happens to a claim that was lost."""
        ...

    def upcoming(self, like: Job, now: datetime, count: int) -> list[Job]:
        """Return jobs that are likely to be claimed next, as they stand; none is claimed.

        What was tried before is not among them, nor what is made ready already, for
        whatever destination of the route. Where nodes share the queue there are none:
        what is next there may be another's.

        Args:
            like: Of whose route, destination and priority.
            now: Aware.
            count: How many are looked at.
        """
        ...

    def adopt(self, job: Job, purpose: str) -> str | None:
        """Let ``job`` send what was made of the same instance on the same route.

        What was made ready for another destination of a route that marks is for all of
        them, so that they are sent the same object.

        Args:
            job: A claimed one that is not ready.
            purpose: What it is to be remembered as made for; of others, that which has
                the same first word is taken.

        Returns:
            Its name in the spool; None if there is none, or the claim was lost.
        """
        ...

    def keep_filtered(
        self, job: Job, file: str, purpose: str, *, lasts: bool = True
    ) -> bool:
        """Remember what ``job`` is to send, so that a retry sends the same bytes.

        Args:
            job: A claimed one.
            file: What it is to send.
            purpose: What that was made for.
            lasts: False for what is made again, the same, after a power cut.

        Returns:
            False if the claim has been lost to another: then nothing may be sent.
        """
        ...

    def sent(
        self, jobs: Sequence[Job], now: datetime, receivers: Sequence[str] = ()
    ) -> list[bool]:
        """Settle each of ``jobs``; False for a claim that was lost to another.

        Args:
            jobs: Claimed ones.
            now: Aware.
            receivers: Who has each: a member, where a job names a pool. Empty where
                each has gone to whom its job names.
        """
        ...

    def dropped(self, job: Job, reason: str) -> bool:
        """Settle ``job`` unsent; False if the claim has been lost to another."""
        ...

    def retry(
        self,
        job: Job,
        not_before: datetime,
        reason: str,
        *,
        is_fault: bool = False,
        is_free: bool = False,
    ) -> bool:
        """Put ``job`` back; False if the claim has been lost to another.

        Args:
            job: A claimed one.
            not_before: When it is due again.
            reason: For people.
            is_fault: Whether to count it among the job's faults.
            is_free: Whether this attempt is not counted: it was none.
        """
        ...

    def give_back(self, jobs: Sequence[Job], now: datetime) -> list[bool]:
        """Put back ``jobs`` that were not begun, due ``now``; nothing is counted.

        Returns:
            For each: False for a claim that was lost to another.
        """
        ...

    def hold(self, job: Job, reason: str) -> bool:
        """Hold ``job``; False if the claim has been lost to another."""
        ...

    def quarantine(self, job: Job, reason: str) -> bool:
        """Quarantine ``job``; False if the claim has been lost to another."""
        ...

    def release_claims(
        self, not_before: datetime, *, suspects: Collection[int] = ()
    ) -> int:
        """Put back every claimed job; only for whoever is the only worker of its lanes.

        Args:
            not_before: When they are due again.
            suspects: Numbers of the jobs that their worker died at: that is counted.

        Returns:
            How many there were.
        """
        ...

    def forget_sent(self, jobs: Sequence[OfInstance] | None = None) -> list[str]:
        """Forget files that are owed to nobody any more, and return their names.

        Args:
            jobs: Whose instances to look at; else all are.
        """
        ...

    def files(self) -> set[str]:
        """Return the names of all files that are still needed."""
        ...

    def counts(self) -> dict[JobState, int]:
        """Return how many jobs stand where; every state is there."""
        ...

    def owed(self) -> dict[str, int]:
        """Return how many jobs of each route are not settled, where there are any."""
        ...

    def held(self, state: JobState = JobState.HELD) -> list[Held]:
        """Return every job that is held, or quarantined."""
        ...

    def waiting_since(self) -> datetime | None:
        """Return when what waits longest came in; None if nothing waits to be sent."""
        ...

    def release(self, job_id: int, now: datetime) -> bool:
        """Wake a job; False if none of that number is held or quarantined."""
        ...

    def discard(self, job_id: int, reason: str) -> bool:
        """Drop a job; False if none of that number is held or quarantined."""
        ...

"""Who has promised to keep what was sent, and who has asked us: durable, beside the jobs.

An instance whose destination has it and has not yet promised to keep it is
``uncommitted``: its files stay, so that it can be sent again. Each time that a
destination is asked, it is under a new transaction; an answer to one of the last few is
as good. What a destination will not keep is sent again a few times, and then held.

Peers that ask us are answered by what the queue knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from dicom_node.commitment import (
    CLASS_CONFLICT,
    NO_SUCH_INSTANCE,
    PROCESSING_FAILURE,
)
from dicom_node.queue.arrival import CLASHES
from dicom_node.queue.job import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from datetime import datetime

    from dicom_node.commitment import Reference, Report, Request
    from dicom_node.queue.job import Job

KEPT: Final = 5
"""Transactions of an instance, an answer to which is understood."""


class Sent(NamedTuple):
    """An instance that a destination has, and is to promise to keep."""

    job: Job
    destination: str
    """Which has it: a member, where the job names a pool."""
    reference: Reference | None
    """As it was sent; None where nobody is to promise anything."""


class Transaction(NamedTuple):
    """What a destination is to be asked now."""

    destination: str
    request: Request
    asks: int
    """How often, this time included."""


class Settled(NamedTuple):
    """A job that is settled now."""

    instance_id: int


class Outcome(NamedTuple):
    """What a report has changed."""

    committed: tuple[Settled, ...]
    again: int
    """Jobs that are sent again, since their destination will not keep what it has."""
    held: int
    """Jobs that were sent again too often."""


class Awaited(NamedTuple):
    """What one destination has not promised to keep yet."""

    destination: str
    instances: int
    since: datetime
    """When the first of it was sent."""
    asks: int
    """How often the most unanswered of it was asked for."""
    reason: str
    """What went wrong the last time; empty if nothing did."""


class Asked(NamedTuple):
    """What a peer has asked us, and was not told yet."""

    id: int
    peer: str
    request: Request
    attempts: int
    """How often it was tried to tell it."""
    reason: str


class Known(NamedTuple):
    """What the queue knows of an instance, by one of its jobs."""

    sop_class_uid: str
    """Empty if it came in under an earlier version."""
    file: str | None
    state: JobState
    reason: str


class Commitments(Protocol):
    """See the module. Every method is one transaction."""

    def sent(self, sent: Sequence[Sent], now: datetime, ask_at: datetime) -> list[bool]:
        """Note that destinations have instances; False for a claim that was lost.

        Args:
            sent: Claimed jobs, and what was sent for them.
            now: Aware.
            ask_at: When to ask; all of a study that was not asked for goes together.
        """
        ...

    def due(self, destinations: Collection[str], now: datetime) -> list[str]:
        """Return which of some destinations are to be asked now."""
        ...

    def ask(
        self,
        destination: str,
        transaction_uid: str,
        now: datetime,
        again_at: datetime,
        most: int,
    ) -> Transaction | None:
        """Return what is to be asked of a destination about one study, if anything.

        It is noted before anybody is asked, so that whatever happens then, an answer is
        understood, and none in time means that it is asked again.

        Args:
            destination: Which.
            transaction_uid: A new one.
            now: Aware.
            again_at: When to ask again, unless :meth:`put_off` says otherwise.
            most: Instances.
        """
        ...

    def put_off(self, transaction_uid: str, until: datetime, reason: str = "") -> None:
        """Ask again for what a transaction asks for, but not before ``until``."""
        ...

    def reported(
        self,
        report: Report,
        destinations: Collection[str],
        now: datetime,
        again_at: Callable[[int], datetime | None],
    ) -> Outcome:
        """Settle what is promised, and put back or hold what is refused.

        Args:
            report: What was told.
            destinations: Whose word it is: nothing of others changes.
            now: Aware.
            again_at: Returns when to send again what was refused that often; None to
                hold it.
        """
        ...

    def give_up(self, asked: Collection[str], now: datetime) -> list[Settled]:
        """Settle what was sent to destinations that are not ``asked`` any more."""
        ...

    def awaited(self) -> list[Awaited]:
        """Return what is not promised yet, by destination."""
        ...

    def take(self, peer: str, request: Request, now: datetime, most: int) -> bool:
        """Note that a peer asks us; durable when this returns.

        The same request again is the same request, and there is room for it.

        Args:
            peer: Its AE title.
            request: What it asks.
            now: Aware.
            most: Requests of one peer that may wait for an answer.

        Returns:
            Whether there was room for it.
        """
        ...

    def peers_to_tell(self, now: datetime) -> list[str]:
        """Return the titles of peers that are to be told something now."""
        ...

    def to_tell(self, peer: str, now: datetime) -> Asked | None:
        """Return what a peer is to be told now, if anything."""
        ...

    def told(self, asked: Asked) -> None:
        """Forget what a peer asked: it was told."""
        ...

    def tell_later(self, asked: Asked, not_before: datetime, reason: str) -> None:
        """Try again to tell a peer."""
        ...

    def untold(self) -> list[Asked]:
        """Return everything that peers have asked and were not told."""
        ...

    def against(
        self, references: Iterable[Reference], is_kept: Callable[[str], bool]
    ) -> list[int | None]:
        """Return of each instance why it is not safe here; None where it is.

        Args:
            references: Instances as they came in.
            is_kept: Says of a file that should be in the spool whether it is.
        """
        ...


def judged(
    reference: Reference, known: Sequence[Known], is_kept: Callable[[str], bool]
) -> int | None:
    """Return why an instance is not safe; None if it is. See :meth:`Commitments.against`.

    It is where it was delivered, or where its file is here and it is owed to somebody.
    What was dropped is not; nor is one of two that came in under the same UID, as long
    as nobody has decided which of them counts.

    Args:
        reference: The instance.
        known: Of all its jobs.
        is_kept: Says of a file whether it is there.
    """
    if any((k.state, k.reason) == (JobState.QUARANTINED, CLASHES) for k in known):
        return PROCESSING_FAILURE
    safe = [
        k
        for k in known
        if k.state in {JobState.SENT, JobState.UNCOMMITTED}
        or (k.state is not JobState.DROPPED and k.file is not None and is_kept(k.file))
    ]
    if not safe:
        return NO_SUCH_INSTANCE
    if any(k.sop_class_uid not in {"", reference.sop_class_uid} for k in safe):
        return CLASS_CONFLICT
    return None


def refused_again(refusals: int, why: str) -> str:
    """Return why a job is held whose destination will not keep it."""
    return (
        f"its destination took it {refusals} times and will not keep it: {why}. Look at "
        "the log of the destination; then: miadmark release."
    )

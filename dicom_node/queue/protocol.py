"""What every queue promises, whatever keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from dicom_node.queue.claims import Claims
from dicom_node.queue.job import JobState
from dicom_node.queue.order import Orders
from dicom_node.queue.purging import Purging
from dicom_node.queue.study import Studies
from dicom_node.queue.tally import Tallies

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from dicom_node.queue.arrival import Arrival, Owed, Taken
    from dicom_node.queue.job import Held, OfInstance
    from dicom_node.queue.note import Notes


def _all_are(_file: str) -> bool:
    return True


class Queue(Claims, Orders, Studies, Tallies, Purging, Protocol):
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

"""When the instances of a study that wait for one another are due.

A study is known by its route: on each it is complete when that route says so. Whatever
happens, it has a moment at which it is complete if nothing more comes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from datetime import timedelta

NOT_YET: Final = datetime(9999, 12, 31, tzinfo=UTC)
"""When a job is due that waits for the rest of its study."""


class Gathering(NamedTuple):
    """How the instances of a study wait for one another."""

    quiet: timedelta
    """How long nothing more comes before it is complete."""
    expected: int = 0
    """How many there are to be, as this instance has it; 0 for unknown."""
    is_late_quiet: bool = False
    """Whether those that come after it was complete wait for one another again."""


class Stage(StrEnum):
    """Where a study stands."""

    GATHERING = "gathering"
    COMPLETE = "complete"
    LATE = "late"
    """It was complete, and those that came afterwards wait for one another."""


class Study(NamedTuple):
    """A study on a route."""

    route: str
    study_instance_uid: str
    stage: Stage
    arrived: int
    expected: int
    """How many there are to be; 0 for unknown."""
    due: datetime
    """When it is complete if nothing more comes; or when it was."""


def arrived(
    known: Study | None, route: str, study: str, gathering: Gathering, now: datetime
) -> Study:
    """Return a study once another instance of it has come.

    Args:
        known: The study before; None if this is its first.
        route: On which.
        study: Its Study Instance UID.
        gathering: What the route wants, and this instance says.
        now: Aware.
    """
    count = 1 if known is None else known.arrived + 1
    expected = gathering.expected or (0 if known is None else known.expected)
    due = now + gathering.quiet
    if known is not None and known.stage is not Stage.GATHERING:
        is_quiet = known.stage is Stage.LATE or gathering.is_late_quiet
        stage = Stage.LATE if is_quiet else Stage.COMPLETE
    else:
        stage = Stage.COMPLETE if 0 < expected <= count else Stage.GATHERING
    if stage is Stage.COMPLETE:
        due = now
    return Study(route, study, stage, count, expected, due)


class Studies(Protocol):
    """Studies that wait; they survive whoever works."""

    def complete_studies(self, now: datetime) -> list[Study]:
        """Let the jobs of studies be done of which nothing more has come; some at once.

        Returns:
            These studies, as they were.
        """
        ...

    def gathering(self) -> list[Study]:
        """Return the studies whose jobs wait for more."""
        ...

    def forget_studies(self, before: datetime) -> int:
        """Forget studies that were complete before a moment; return how many.

        What comes of them afterwards is gathered anew.
        """
        ...

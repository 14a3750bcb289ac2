"""How many there are: of each route and destination, exactly, at one moment.

Whatever was received for a destination is sent, uncommitted, dropped, held, quarantined
or pending, and nothing else: each is counted by itself, so that the sum is a check.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from datetime import datetime

LATELY: Final = timedelta(minutes=5)
"""What rates are told of: so many whole minutes before the one that runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What became of all that one destination of one route was ever owed."""

    route: str
    destination: str
    received: int = 0
    waiting: int = 0
    working: int = 0
    uncommitted: int = 0
    """Sent, and its destination has not promised yet to keep it."""
    sent: int = 0
    dropped: int = 0
    held: int = 0
    quarantined: int = 0
    oldest: datetime | None = None
    """When the first came in of those that are pending."""
    received_lately: int = 0
    sent_lately: int = 0

    @property
    def pending(self) -> int:
        """Return how many are still to be sent, without a person having to act."""
        return self.waiting + self.working

    @property
    def is_exact(self) -> bool:
        """Return whether everything that was received is accounted for, once."""
        settled = self.sent + self.dropped + self.held + self.quarantined
        return self.received == settled + self.uncommitted + self.pending


class Tallies(Protocol):
    """Counts, without going through the jobs."""

    def tallies(self, now: datetime) -> list[Tally]:
        """Return one for each route and destination that was ever owed anything."""
        ...

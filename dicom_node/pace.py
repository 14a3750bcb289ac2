"""How often each of many may ask: a token bucket each. Pure; the time is an argument."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


class Pace:
    """Lets each have so many in a minute."""

    def __init__(self, per_minute: int) -> None:
        """Let everyone begin with what a minute allows."""
        self._most = float(per_minute)
        self._buckets: dict[str, tuple[float, datetime]] = {}

    def allows(self, who: str, now: datetime) -> bool:
        """Say whether ``who`` may ask once more, and count it.

        Args:
            who: There is a bucket for each that was ever seen, so it must be something
                that not everybody can make up.
            now: Aware. A clock that was set back gives nothing and takes nothing.
        """
        left, since = self._buckets.get(who, (self._most, now))
        passed_s = max((now - since).total_seconds(), 0.0)
        left = min(left + passed_s * self._most / 60, self._most)
        is_allowed = left >= 1
        self._buckets[who] = (left - is_allowed, now)
        return is_allowed

"""How often somebody may be wrong before he has to wait. Pure: the clock is an argument.

By name and by address: a list of passwords is not tried on one account, nor one password
on a list of accounts. Waiting doubles, and ends; nobody is locked out for ever by others
who try his name.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime

_FIRST: Final = timedelta(seconds=15)
_LONGEST: Final = timedelta(minutes=15)
_FORGOTTEN: Final = timedelta(hours=1)
_MOST: Final = 10_000
"""Names and addresses that are remembered."""


class _Failures(NamedTuple):
    number: int
    last: datetime


class Attempts:
    """Counts failures in a row."""

    def __init__(self, free: int) -> None:
        """Prepare: that many failures cost no waiting."""
        self._free = free
        self._failures: dict[str, _Failures] = {}

    def wait(self, who: str, now: datetime) -> timedelta:
        """Return how long ``who`` still has to wait before he tries again."""
        failures = self._failures.get(who)
        if failures is None or failures.number < self._free:
            return timedelta(0)
        doublings = min(failures.number - self._free, 16)
        until = failures.last + min(_FIRST * (1 << doublings), _LONGEST)
        return max(until - now, timedelta(0))

    def failed(self, who: str, now: datetime) -> None:
        """Count a failure."""
        before = self._failures.pop(who, None)
        is_old = before is None or now - before.last > _FORGOTTEN
        count = 1 if is_old or before is None else before.number + 1
        self._failures[who] = _Failures(count, now)
        while len(self._failures) > _MOST:
            del self._failures[next(iter(self._failures))]

    def succeeded(self, who: str) -> None:
        """Forget failures."""
        self._failures.pop(who, None)

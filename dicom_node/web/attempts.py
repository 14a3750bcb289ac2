"""How often somebody may be wrong before he has to wait. Pure: the clock is an argument.

By name and by address: a list of passwords is not tried on one account, nor one password
on a list of accounts. Waiting doubles, and ends; nobody is locked out for ever by others
who try his name. Failures are forgiven one by one as time goes by.

An attempt counts as a failure from when it is begun, until it is known to be none: those
who try many at once get no more of them than those who try one after the other.
"""

from __future__ import annotations

import math
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime

_FIRST: Final = timedelta(seconds=15)
_LONGEST: Final = timedelta(minutes=15)
_FORGOTTEN: Final = timedelta(hours=1)
_DOUBLINGS: Final = 6
"""After which waiting is at its longest; further failures are no more to be forgiven."""
_MOST: Final = 10_000
"""Names and addresses that are remembered."""

FREE_OF_NAME: Final = 5
FREE_OF_ADDRESS: Final = 30
_FORGIVEN_OF_NAME: Final = timedelta(minutes=15)
_FORGIVEN_OF_ADDRESS: Final = timedelta(minutes=2)


class _Failures(NamedTuple):
    number: float
    last: datetime


class Attempts:
    """Counts failures."""

    def __init__(self, free: int, forgiven: timedelta) -> None:
        """Prepare.

        Args:
            free: That many failures cost no waiting.
            forgiven: One failure is forgiven after that long.
        """
        self._free, self._forgiven = free, forgiven
        self._failures: dict[str, _Failures] = {}

    def wait(self, who: str, now: datetime) -> timedelta:
        """Return how long ``who`` still has to wait before he tries again."""
        failures = self._failures.get(who)
        count = math.ceil(self._number(who, now))
        if failures is None or count < self._free:
            return timedelta(0)
        counted = math.ceil(failures.number)
        doublings = min(max(counted - self._free, 0), _DOUBLINGS)
        until = failures.last + min(_FIRST * (1 << doublings), _LONGEST)
        return max(until - now, timedelta(0))

    def failed(self, who: str, now: datetime) -> None:
        """Count a failure."""
        number = min(self._number(who, now) + 1, self._free + _DOUBLINGS)
        self._failures.pop(who, None)
        self._failures[who] = _Failures(number, now)
        while len(self._failures) > _MOST:
            del self._failures[next(iter(self._failures))]

    def taken_back(self, who: str) -> None:
        """Count one failure less: it was none."""
        failures = self._failures.get(who)
        if failures is None:
            return
        if failures.number <= 1:
            del self._failures[who]
        else:
            self._failures[who] = failures._replace(number=failures.number - 1)

    def succeeded(self, who: str) -> None:
        """Forget failures."""
        self._failures.pop(who, None)

    def _number(self, who: str, now: datetime) -> float:
        """Return how many failures are not forgiven yet."""
        failures = self._failures.get(who)
        if failures is None or now - failures.last > _FORGOTTEN:
            return 0.0
        return max(failures.number - (now - failures.last) / self._forgiven, 0.0)


class LoginLimits:
    """Counts failures of names and of addresses; many threads may ask."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock = threading.Lock()
        self._of_names = Attempts(FREE_OF_NAME, _FORGIVEN_OF_NAME)
        self._of_addresses = Attempts(FREE_OF_ADDRESS, _FORGIVEN_OF_ADDRESS)

    def begin(self, name: str, address: str, now: datetime) -> timedelta:
        """Begin an attempt, which is counted as failed; or say how long to wait first.

        Args:
            name: Who he says he is.
            address: Where he comes from; empty if that is not known.
            now: When.

        Returns:
            Zero if the attempt may be made. Else nothing is counted.
        """
        with self._lock:
            wait = self._of_names.wait(name, now)
            if address:
                wait = max(wait, self._of_addresses.wait(address, now))
            if not wait:
                self._of_names.failed(name, now)
                if address:
                    self._of_addresses.failed(address, now)
            return wait

    def succeeded(self, name: str, address: str) -> None:
        """Say that an attempt that was begun was none of those that fail.

        Args:
            name: His failures are forgotten.
            address: Only this attempt is taken back: others may come from there.
        """
        with self._lock:
            self._of_names.succeeded(name)
            self._of_addresses.taken_back(address)

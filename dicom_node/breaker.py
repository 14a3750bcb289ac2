"""Whether a destination is up, as far as can be told: a circuit breaker. Pure.

After a few failures in a row a destination is down: nothing is sent there, so that
nobody waits for it, and it is asked from time to time, by C-ECHO, whether it is there
again. One that says so and fails again is down again at once, and asked less often; only
what it has taken makes it as good as new. One that has answered that it is out of
resources would answer an echo all the same: it is left alone for as long, and then tried.

Time and chance are arguments. Nothing here asks anybody, or remembers anything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from dicom_node.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime


class Trouble(StrEnum):
    """What kind of trouble there is with a destination."""

    UNREACHABLE = "down"
    """No association, or it broke: an echo tells when that is over."""
    FULL = "out of resources"
    """It is out of resources: only trying tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """When a destination is down, and how often it is asked whether it is up."""

    failures: int = 3
    """In a row; then it is down."""
    first_probe_s: float = 5.0
    """Until it is asked for the first time; twice that until the second, and so on."""
    longest_probe_s: float = 300.0

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.failures < 1:
            raise ConfigError(f"breaker: failures {self.failures}", hint="1 or more.")
        if not 0 < self.first_probe_s <= self.longest_probe_s:
            raise ConfigError(
                f"breaker: first_probe_s {self.first_probe_s}, longest_probe_s "
                f"{self.longest_probe_s}",
                hint="More than nothing, and the first no longer than the longest.",
            )

    def wait(self, probes: int, chance: Callable[[], float]) -> timedelta:
        """Return how long to wait after that many probes: half of it by lot.

        Args:
            probes: Since it last took something.
            chance: Returns a number from 0 up to 1.
        """
        doublings = min(probes, 32)  # keeps the number in range
        longest = min(self.first_probe_s * (1 << doublings), self.longest_probe_s)
        return timedelta(seconds=longest * (1 - chance() / 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a destination is."""

    failures: int = 0
    """In a row."""
    trouble: Trouble = Trouble.UNREACHABLE
    since: datetime | None = None
    """When it went down; None if it is up."""
    reason: str = ""
    """What went wrong last."""
    again: datetime | None = None
    """When it is asked or tried again, if it is down."""
    probes: int = 0
    """How often that was put off since it last took something."""

    def rests(self, now: datetime) -> bool:
        """Say whether nothing is sent there now."""
        if self.since is None:
            return False
        if self.trouble is Trouble.FULL:
            return self.again is not None and now < self.again
        return True

    def is_to_be_asked(self, now: datetime) -> bool:
        """Say whether it is time for a C-ECHO."""
        return (
            self.since is not None
            and self.trouble is Trouble.UNREACHABLE
            and (self.again is None or self.again <= now)
        )

    def told(self) -> str:
        """Return it for a person."""
        if self.since is None:
            return f"up; last trouble: {self.reason}" if self.failures else "up"
        since = self.since.isoformat(timespec="seconds")
        how = "asked" if self.trouble is Trouble.UNREACHABLE else "tried"
        when = "" if self.again is None else self.again.isoformat(timespec="seconds")
        return f"{self.trouble} since {since}, {how} again at {when}: {self.reason}"

    def to_json(self) -> dict[str, Any]:
        """Return it for a program."""
        return {
            "is_up": self.since is None,
            "failures": self.failures,
            "trouble": self.trouble.value if self.since else None,
            "since": self.since and self.since.isoformat(),
            "again": self.again and self.again.isoformat(),
            "reason": self.reason,
        }


NEW = Health()
"""Nothing is known against it."""


def failed(
    health: Health,
    trouble: Trouble,
    reason: str,
    *,
    now: datetime,
    breaker: Breaker,
    chance: Callable[[], float],
    wait_s: float = 0.0,
) -> Health:
    """Return how a destination is after something could not be sent there.

    Args:
        health: How it was.
        trouble: Which kind.
        reason: For people.
        now: Aware.
        breaker: When it is down.
        chance: Returns a number from 0 up to 1.
        wait_s: For how long it wants to be left alone: it is, from the first time on.
    """
    if health.rests(now):
        return health  # somebody who had begun before; that is known already
    counted = replace(
        health, failures=health.failures + 1, trouble=trouble, reason=reason
    )
    wanted = timedelta(seconds=wait_s)
    if counted.failures >= breaker.failures:
        wanted = max(wanted, breaker.wait(health.probes, chance))
    if not wanted:
        return counted
    return replace(
        counted,
        since=health.since or now,
        again=now + wanted,
        probes=health.probes + 1,
    )


def put_off(
    health: Health, *, now: datetime, breaker: Breaker, chance: Callable[[], float]
) -> Health:
    """Return how a destination is that is being asked now: when it is asked again."""
    again = now + breaker.wait(health.probes, chance)
    return replace(health, again=again, probes=health.probes + 1)


def answered(health: Health, breaker: Breaker) -> Health:
    """Return how a destination is that answered a C-ECHO: up, on probation."""
    return replace(health, since=None, again=None, failures=breaker.failures - 1)

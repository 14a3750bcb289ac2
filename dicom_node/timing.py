"""When the jobs of a route are done: how urgent they are, at what hours, which together.

Choices only, as a configuration names them; the clock is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from dicom_node.errors import ConfigError
from dicom_node.hours import Hours

if TYPE_CHECKING:
    from datetime import datetime

    from dicom_node.condition import Condition

MOST_URGENT: Final = 1000
"""The highest priority that anybody but a person with an order can give, and, below
zero, the lowest."""


class Complete(StrEnum):
    """When a study is complete enough to be sent."""

    IMMEDIATE = "immediate"
    """Each instance is sent as it comes."""
    QUIET = "quiet"
    """Once nothing more of it has come for a while."""
    COUNT = "count"
    """Once as many instances have come as there are to be; or likewise."""


class Late(StrEnum):
    """What becomes of an instance of a study that was complete already."""

    IMMEDIATE = "immediate"
    """It is sent as it comes."""
    QUIET = "quiet"
    """It waits for others of its kind, until nothing more comes for a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """When the jobs of a route are done."""

    hold: bool = False
    """Whether they all wait, until the configuration says otherwise."""
    priority: int = 0
    """What is higher is done first, whatever its route."""
    priority_where: tuple[Condition, ...] = ()
    """An instance that satisfies all of these is more urgent by ``raised_by``."""
    trust_priority: bool = False
    """Whether what its sender says of an instance counts (PS3.7 9.1.1.1, Priority): high
    is more urgent by ``raised_by``, and low less."""
    raised_by: int = 100
    hours: tuple[str, ...] = ()
    """When they are done (:mod:`dicom_node.hours`); empty: at all times."""
    timezone: str = ""
    """Of ``hours``."""
    study: Complete = Complete.IMMEDIATE
    study_quiet_s: float = 60.0
    """How long nothing more of a study comes before it is complete."""
    study_count: int = 0
    """How many instances a study has, where those do not say it themselves (Number of
    Study Related Instances); 0 for unknown."""
    late: Late = Late.IMMEDIATE

    def check(self, where: str) -> None:
        """Return if it can work.

        Raises:
            ConfigError: It cannot; ``where`` says whose it is.
        """
        if abs(self.priority) > MOST_URGENT or not 0 <= self.raised_by <= MOST_URGENT:
            raise ConfigError(
                f"{where}: priority {self.priority}, raised_by {self.raised_by}",
                hint=f"At most {MOST_URGENT}, and priority at least -{MOST_URGENT}.",
            )
        if self.hours:
            try:
                Hours.of(self.hours, self.timezone)
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}", hint=error.hint) from error
        if not 0 < self.study_quiet_s <= 7 * 24 * 3600:
            raise ConfigError(
                f"{where}: study_quiet_s {self.study_quiet_s}",
                hint="Above 0, and a week at most.",
            )
        if self.study_count < 0:
            raise ConfigError(f"{where}: study_count {self.study_count}")

    def is_open(self, now: datetime) -> bool:
        """Say whether its hours let jobs be done at a moment."""
        return not self.hours or Hours.of(self.hours, self.timezone).are_open(now)

    def rests(self, now: datetime) -> bool:
        """Say whether its jobs wait at a moment, as the configuration has it."""
        return self.hold or not self.is_open(now)

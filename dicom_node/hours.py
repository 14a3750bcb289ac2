"""The hours of a week in which something is open. Pure: the moment is an argument.

``Mon-Fri 18:00-06:00`` is open on those evenings, and until six on the mornings after
them; ``Sat-Sun``, or ``Sat 00:00-24:00``, all day. Hours are those that a clock on the
wall shows in a time zone: one that is skipped in spring is skipped here too, and one that
comes twice in autumn is open, or closed, both times.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple
from zoneinfo import ZoneInfo

from dicom_node.errors import ConfigError

if TYPE_CHECKING:
    from datetime import datetime

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SPAN: Final = re.compile(
    r"(?P<first>[a-z]{3})(-(?P<last>[a-z]{3}))?"
    r"(\s+(?P<start>\d{2}:\d{2})\s*-\s*(?P<end>\d{2}:\d{2}))?"
)
_WHOLE_DAY: Final = 24 * 60


class Span(NamedTuple):
    """Hours on some days, in minutes from midnight."""

    days: frozenset[int]
    """On which it begins; 0 is Monday."""
    start: int
    end: int
    """Not after ``start``: of the day after."""

    def holds(self, day: int, minute: int) -> bool:
        """Say whether it is open at a minute of a day."""
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        return (day in self.days and minute >= self.start) or (
            (day - 1) % 7 in self.days and minute < self.end
        )


class Hours(NamedTuple):
    """Spans in one time zone."""

    spans: tuple[Span, ...]
    zone: ZoneInfo

    @classmethod
    def of(cls, texts: tuple[str, ...], timezone: str) -> Hours:
        """Return the hours that a configuration states.

        Raises:
            ConfigError: They are none, or there is no such time zone.
        """
        return _hours(texts, timezone)

    def are_open(self, now: datetime) -> bool:
        """Say whether it is open at a moment, which is aware."""
        local = now.astimezone(self.zone)
        minute = local.hour * 60 + local.minute
        return any(span.holds(local.weekday(), minute) for span in self.spans)


@lru_cache(maxsize=1024)
def _hours(texts: tuple[str, ...], timezone: str) -> Hours:
    if not timezone:
        raise ConfigError("hours without a timezone", hint='timezone = "Europe/Berlin"')
    try:
        zone = ZoneInfo(timezone)
    except (OSError, ValueError, KeyError) as error:  # no file, or no name of one
        raise ConfigError(
            f"timezone {timezone!r} is not known",
            hint="A name of the IANA database, as Europe/Berlin; Debian: tzdata.",
        ) from error
    return Hours(tuple(_span(text) for text in texts), zone)


def _span(text: str) -> Span:
    found = _SPAN.fullmatch(text.strip().lower())
    if found is None:
        raise _error(text)
    first, last = found["first"], found["last"] or found["first"]
    if first not in _DAYS or last not in _DAYS:
        raise _error(text)
    begin, length = _DAYS.index(first), _DAYS.index(last) - _DAYS.index(first)
    days = frozenset((begin + n) % 7 for n in range(length % 7 + 1))
    start, end = _minute(text, found["start"] or "00:00"), _WHOLE_DAY
    if found["end"] is not None:
        end = _minute(text, found["end"])
    if start in {end, _WHOLE_DAY}:
        raise _error(text)
    return Span(days, start, end)


def _minute(text: str, clock: str) -> int:
    hour, minute = (int(part) for part in clock.split(":"))
    if minute > 59 or hour * 60 + minute > _WHOLE_DAY:
        raise _error(text)
    return hour * 60 + minute


def _error(text: str) -> ConfigError:
    return ConfigError(
        f"hours: {text!r}",
        hint='As "Mon-Fri 18:00-06:00", "Sat-Sun", "Wed 12:00-24:00".',
    )

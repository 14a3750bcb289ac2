"""Hours of a week: across midnight, and where clocks are put forward and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from dicom_node.errors import ConfigError
from dicom_node.hours import Hours

BERLIN = ZoneInfo("Europe/Berlin")
NIGHTS = Hours.of(("Mon-Fri 18:00-06:00", "Sat-Sun"), "Europe/Berlin")

# 2026-01-05 is a Monday.
OPEN = {
    "on Monday evening": ("2026-01-05 18:00", True),
    "a minute before": ("2026-01-05 17:59", False),
    "on Monday morning, which is nobody's night": ("2026-01-05 05:59", False),
    "on Tuesday before six, Monday's night": ("2026-01-06 05:59", True),
    "at six": ("2026-01-06 06:00", False),
    "on Friday night": ("2026-01-09 23:00", True),
    "on Saturday": ("2026-01-10 12:00", True),
    "at the last minute of Sunday": ("2026-01-11 23:59", True),
    "once Sunday is over": ("2026-01-12 00:00", False),
}


@pytest.mark.parametrize(("at", "is_open"), OPEN.values(), ids=OPEN.keys())
def test_nights_and_the_weekend(at: str, *, is_open: bool) -> None:
    local = datetime.fromisoformat(at).replace(tzinfo=BERLIN)
    assert NIGHTS.are_open(local) is is_open
    assert NIGHTS.are_open(local.astimezone(UTC)) is is_open


def open_for(hours: Hours, start: datetime, length: timedelta) -> timedelta:
    """How long it is open from a moment on."""
    minute = timedelta(minutes=1)
    steps = range(length // minute)
    return minute * sum(hours.are_open(start + n * minute) for n in steps)


@pytest.mark.parametrize(
    ("evening", "lasts"),
    [
        pytest.param("2026-01-10", 12, id="an ordinary night"),
        pytest.param("2026-03-28", 11, id="clocks go forward"),
        pytest.param("2026-10-24", 13, id="clocks go back"),
    ],
)
def test_a_night_begins_and_ends_by_the_clock_on_the_wall(
    evening: str, lasts: int
) -> None:
    hours = Hours.of(("Sat 18:00-06:00",), "Europe/Berlin")
    noon = datetime.fromisoformat(f"{evening} 12:00").replace(tzinfo=BERLIN)
    start = noon.astimezone(UTC)
    assert open_for(hours, start, timedelta(days=1)) == timedelta(hours=lasts)


def test_what_the_clock_skips_never_comes_and_what_it_repeats_comes_twice() -> None:
    hours = Hours.of(("Sun 02:15-02:45",), "Europe/Berlin")
    for day, minutes in (("2026-03-29", 0), ("2026-04-05", 30), ("2026-10-25", 60)):
        start = datetime.fromisoformat(day).replace(tzinfo=BERLIN).astimezone(UTC)
        found = open_for(hours, start, timedelta(days=1))
        assert found == timedelta(minutes=minutes)


def test_days_go_round_the_week() -> None:
    hours = Hours.of(("Sat-Mon 10:00-11:00",), "UTC")
    found = [
        hours.are_open(datetime(2026, 1, day, 10, tzinfo=UTC)) for day in (10, 12, 13)
    ]
    assert found == [True, True, False]


@pytest.mark.parametrize(
    "text",
    ["", "Mon 18:00", "Mun", "Mon 25:00-26:00", "Mon 18:00-18:00", "Mon 1:00-2:00"],
)
def test_what_are_no_hours_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="hours"):
        Hours.of((text,), "UTC")


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../etc/passwd"])
def test_a_time_zone_has_to_be_known(zone: str) -> None:
    with pytest.raises(ConfigError, match="timezone"):
        Hours.of(("Mon",), zone)

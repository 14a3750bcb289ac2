"""How much came and went, as a picture: SVG within the page. Pure.

The numbers are in a table beside it: a picture alone says nothing to who cannot see it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from dicom_node.queue.history import SLOT, slot_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

WIDTH, HEIGHT = 720, 150
_BOTTOM: Final = 20


class Hour(NamedTuple):
    """What came and went in an hour."""

    name: str
    received: int
    sent: int


class Plot(NamedTuple):
    """Two lines over a day."""

    received: str
    """Points, as ``polyline`` takes them."""
    sent: str
    most: int
    """Of ten minutes: the height of the picture."""
    ticks: tuple[tuple[int, str], ...]
    """Where hours are, and what they are called."""
    hours: tuple[Hour, ...]


def plot_of(
    pace: Mapping[str, Mapping[str, int]], now: datetime, span: timedelta
) -> Plot:
    """Return what to draw.

    Args:
        pace: As :meth:`dicom_node.queue.history.History.pace` tells it.
        now: Where the picture ends; aware.
        span: How much of time it shows.
    """
    count = span // SLOT
    moments = [now - SLOT * (count - 1 - number) for number in range(count)]
    lines = {
        what: [pace.get(what, {}).get(slot_of(moment), 0) for moment in moments]
        for what in ("received", "sent")
    }
    most = max(1, *lines["received"], *lines["sent"])
    hours: dict[str, Hour] = {}
    ticks: list[tuple[int, str]] = []
    for number, moment in enumerate(moments):
        name = f"{moment:%H}:00"
        before = hours.get(f"{moment:%d %H}")
        if before is None and moment.hour % 4 == 0 and 2 < number < count - 3:
            ticks.append((_x(number, count), name))
        hours[f"{moment:%d %H}"] = Hour(
            name,
            (before.received if before else 0) + lines["received"][number],
            (before.sent if before else 0) + lines["sent"][number],
        )
    return Plot(
        received=_points(lines["received"], most),
        sent=_points(lines["sent"], most),
        most=most,
        ticks=tuple(ticks),
        hours=tuple(hours.values()),
    )


def _points(values: list[int], most: int) -> str:
    height = HEIGHT - _BOTTOM - 4
    return " ".join(
        f"{_x(number, len(values))},{4 + height - round(height * value / most, 1):g}"
        for number, value in enumerate(values)
    )


def _x(number: int, count: int) -> int:
    return round(number * WIDTH / max(1, count - 1))

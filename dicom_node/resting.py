"""Which routes rest now: by their hours, their configuration, or a person's wish."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from dicom_node.queue.order import HeldRoute
    from dicom_node.routing import Route


def resting_routes(
    routes: Iterable[Route], held: Iterable[HeldRoute], now: datetime
) -> frozenset[str]:
    """Return the names of routes whose jobs wait at a moment.

    Args:
        routes: Of the configuration.
        held: Those that people hold.
        now: Aware.
    """
    by_themselves = {route.name for route in routes if route.rests(now)}
    return frozenset(by_themselves | {one.route for one in held})


def why_resting(
    routes: Iterable[Route], held: Iterable[HeldRoute], now: datetime
) -> list[str]:
    """Return a sentence for each reason of each route that rests."""
    return [
        *(
            f"route {one.route!r} is held by {one.by} since "
            f"{one.since.isoformat(timespec='seconds')}: {one.why}"
            for one in held
        ),
        *(
            f"route {route.name!r} is held by the configuration"
            for route in routes
            if route.hold
        ),
        *(
            f"route {route.name!r} rests until its hours begin: "
            f"{', '.join(route.hours)} ({route.timezone})"
            for route in routes
            if not route.is_open(now)
        ),
    ]

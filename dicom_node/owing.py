"""What it means for an instance to take routes: to whom it is owed, and how. Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from dicom_node.queue.arrival import Owed
from dicom_node.queue.study import Gathering
from dicom_node.routing import Action
from dicom_node.timing import MOST_URGENT, Complete, Late

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dicom_node.route import Facts
    from dicom_node.routing import Route

_HIGH: Final = 1
_LOW: Final = 2


def owed(routes: Iterable[Route], facts: Facts) -> list[Owed]:
    """Return to whom an instance is owed that takes routes.

    Args:
        routes: Which it takes.
        facts: What it is.
    """
    return [
        Owed(
            route.name,
            to,
            priority_of(route, facts),
            gathering_of(route, facts),
            marks=route.action is Action.MARK,
        )
        for route in routes
        for to in route.destinations
    ]


def priority_of(route: Route, facts: Facts) -> int:
    """Return how urgent an instance is on a route.

    Source:
        PS3.7 9.1.1.1: the Priority of a C-STORE request.
    """
    priority, conditions = route.priority, route.priority_where
    if conditions and all(c.holds(c.values(facts.attributes)) for c in conditions):
        priority += route.raised_by
    if route.trust_priority and facts.requested == _HIGH:
        priority += route.raised_by
    if route.trust_priority and facts.requested == _LOW:
        priority -= route.raised_by
    return max(-MOST_URGENT, min(priority, MOST_URGENT))


def gathering_of(route: Route, facts: Facts) -> Gathering | None:
    """Return how an instance waits for the rest of its study; None if it does not.

    Source:
        PS3.3 C.3.4: Number of Study Related Instances, as queries return it; some
        senders leave it in what they send.
    """
    if route.study is Complete.IMMEDIATE:
        return None
    expected = 0
    if route.study is Complete.COUNT:
        expected = _said(facts) or route.study_count
    quiet = timedelta(seconds=route.study_quiet_s)
    return Gathering(quiet, expected, route.late is Late.QUIET)


def _said(facts: Facts) -> int:
    try:
        return max(int(facts.attributes.NumberOfStudyRelatedInstances), 0)
    except (AttributeError, TypeError, ValueError):
        return 0  # it does not say, or nothing that is a number

"""On what terms a node owes something: what its routes do, and where destinations are.

A job names both and says neither. Where it goes to another node, that one's own would
count, and what was to leave marked could leave as it came: so the terms go along, in
plain words, and two nodes compare them. Names that only one of the two knows are no
difference here: the worker holds those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dicom_node.queue.job import JobState
from dicom_node.routing import Action

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dicom_node.config import Config
    from dicom_node.destination import Destination
    from dicom_node.routing import Route


class Objection(NamedTuple):
    """Why a job is not done here as it was owed there."""

    state: JobState
    """What becomes of it: quarantined, so that it is let go by its number alone, where
    it could leave unmarked; held where it would go to another place."""
    reason: str


class Terms(NamedTuple):
    """What goes over; JSON."""

    routes: Mapping[str, str]
    destinations: Mapping[str, str]

    @classmethod
    def of(cls, config: Config) -> Terms:
        """Return the terms of a node."""
        return cls(
            {one.name: _done_by(one) for one in config.routes},
            {one.name: _place_of(one) for one in config.destinations},
        )

    def told(self) -> dict[str, Any]:
        """Return them in words of JSON; the inverse of :meth:`read`."""
        return {"routes": dict(self.routes), "destinations": dict(self.destinations)}

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Terms:
        """Return what another node has told."""
        return cls(told["routes"], told["destinations"])

    def objection(
        self, ours: Terms, node: str, route: str, destination: str
    ) -> Objection | None:
        """Return why a job is not to be done on other terms; None if they are alike.

        Args:
            ours: Those of the node that is to do it.
            node: Name of the one that owed it.
            route: Of the job.
            destination: Likewise.
        """
        there, here = self.routes.get(route, "unknown"), ours.routes.get(route)
        if here is not None and here != there:
            says = f"route {route!r}: {there} at {node}, which owed it, and {here} here"
            return Objection(JobState.QUARANTINED, says)
        there = self.destinations.get(destination, "unknown")
        here = ours.destinations.get(destination)
        if here is not None and here != there:
            says = f"destination {destination!r}: {there} at {node}, and {here} here"
            return Objection(JobState.HELD, says)
        return None


def _done_by(route: Route) -> str:
    """Return all that decides whether something leaves unmarked."""
    if route.action is not Action.MARK:
        return route.action.value
    kinds = "quantities too" if route.mark_quantities else "pictures"
    return (
        f"{route.action.value} ({kinds}; not_images {route.not_images.value}, "
        f"other_pixels {route.other_pixels.value})"
    )


def _place_of(destination: Destination) -> str:
    if destination.url:
        return destination.url
    return f"{destination.ae_title} at {destination.host}:{destination.port}"

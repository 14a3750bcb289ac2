"""Which routes an instance takes, and why. Pure: what it matches on is an argument.

A route lists conditions; all of them must hold. ``choose`` and ``explain`` are one
computation, so that what is told of a route is what happens on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydicom.dataset import Dataset

    from dicom_node.instance import Identity
    from dicom_node.routing import Route


class Facts(NamedTuple):
    """What a route may match on."""

    identity: Identity
    attributes: Dataset
    """Those that conditions of any route look at, as far as the instance has them."""
    calling: str
    """AE title of whoever sent it: a claim, good for routing and no more."""
    called: str
    """AE title that it was sent to."""
    requested: int = 0
    """Priority of the request (PS3.7 9.1.1.1): 0 medium, 1 high, 2 low. A claim, too."""


class Checked(NamedTuple):
    """One condition, and what an instance has to say to it."""

    name: str
    wanted: tuple[str, ...]
    found: tuple[str, ...]
    holds: bool

    def __str__(self) -> str:
        """Return it for a person."""
        found = ", ".join(map(repr, self.found)) or "nothing"
        wanted = ", ".join(map(repr, self.wanted))
        return f"{self.name} is {found}, wanted {wanted}"


class Explained(NamedTuple):
    """A route, and each of its conditions."""

    route: Route
    conditions: tuple[Checked, ...]

    @property
    def is_taken(self) -> bool:
        """Return whether the instance takes the route."""
        return all(condition.holds for condition in self.conditions)


def explain(routes: Iterable[Route], facts: Facts) -> list[Explained]:
    """Return what each route makes of an instance, in the order of the configuration."""
    return [Explained(route, tuple(_checked(route, facts))) for route in routes]


def choose(routes: Iterable[Route], facts: Facts) -> list[Route]:
    """Return every route that matches, in the order of the configuration."""
    return [each.route for each in explain(routes, facts) if each.is_taken]


def _checked(route: Route, facts: Facts) -> Iterable[Checked]:
    named: Sequence[tuple[str, tuple[str, ...], str]] = (
        ("the calling AE title", route.calling_ae_titles, facts.calling),
        ("the called AE title", route.called_ae_titles, facts.called),
        ("Modality", route.modalities, facts.identity.modality),
        ("the SOP class", route.sop_classes, facts.identity.sop_class_uid),
    )
    for name, wanted, found in named:
        if wanted:
            yield Checked(name, wanted, (found,), found in wanted)
    for condition in route.where:
        values = condition.values(facts.attributes)
        yield Checked(
            condition.attribute, condition.patterns, values, condition.holds(values)
        )

"""What people may do on the page: roles, and the rights that each has.

Three roles, of which somebody may have several. Whoever works on jobs does not thereby
see patients' pictures as they came, and whoever decides about originals does not thereby
work on jobs.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Role(StrEnum):
    """What somebody is here for."""

    VIEWER = "viewer"
    """Looks: whether it works, where a study is, what a mark looks like."""
    OPERATOR = "operator"
    """Also acts: retries, releases, gives up, holds routes, tries destinations."""
    OFFICER = "officer"
    """Also decides who may have originals, sees them, and reads the audit."""


class Right(StrEnum):
    """What one page or button needs."""

    LOOK = "look"
    ACT = "act"
    """On jobs, routes and destinations."""
    ORIGINALS = "originals"
    """To see pictures without a mark."""
    DECIDE = "decide"
    """Keys, grants and the audit."""


_RIGHTS: Final[Mapping[Role, frozenset[Right]]] = {
    Role.VIEWER: frozenset({Right.LOOK}),
    Role.OPERATOR: frozenset({Right.LOOK, Right.ACT}),
    Role.OFFICER: frozenset({Right.LOOK, Right.ORIGINALS, Right.DECIDE}),
}


def rights_of(roles: Iterable[Role]) -> frozenset[Right]:
    """Return what somebody with these roles may do."""
    return frozenset().union(*(_RIGHTS[role] for role in roles))

"""Destinations that stand for one another: tables ``[[pool]]`` of a configuration. Pure.

A route names a pool as it names a destination, and each instance is owed to one of its
members: to the first, and to the others in their order where that one does not take it;
or to one that the study decides, so that a study stays together and studies are spread.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from dicom_node.errors import ConfigError


class Choose(StrEnum):
    """Which member is tried first."""

    FIRST = "first"
    """The first that is named."""
    BALANCE = "balance"
    """Another for each study, and always the same for one study."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Destinations of which one is sent each instance."""

    name: str
    """How routes call it."""
    members: tuple[str, ...]
    """Names of destinations."""
    choose: Choose = Choose.FIRST

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not self.members or len(set(self.members)) < len(self.members):
            raise ConfigError(
                f"pool {self.name!r}: members = {list(self.members)}",
                hint="Names of destinations, each of them once.",
            )

    def order(self, study: str) -> tuple[str, ...]:
        """Return the members in the order in which they are tried for a study.

        A member that comes or goes moves the studies that it has, and no others.

        Args:
            study: Its Study Instance UID.

        Source:
            Thaler and Ravishankar, A name-based mapping scheme for rendezvous, 1996.
        """
        if self.choose is Choose.FIRST:
            return self.members

        def weight(member: str) -> bytes:
            return hashlib.sha256(f"{member}\0{study}".encode()).digest()

        return tuple(sorted(self.members, key=weight, reverse=True))

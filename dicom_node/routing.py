"""Routes as a configuration states them: which instances, where to, and what is done.

What a route cannot do it must not say: that is refused when it is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from dicom_node.errors import ConfigError
from dicom_node.timing import Timing

if TYPE_CHECKING:
    from dicom_node.condition import Condition


class Action(StrEnum):
    """What a route does to an instance."""

    MARK = "mark"
    """Sends it marked; what cannot be marked is held."""
    STRIP = "strip"
    """Takes a mark of ours off, for a destination that holds a grant."""
    PASS = "pass"  # noqa: S105
    """Sends it as it came."""


class Unmarked(StrEnum):
    """What a marking route does with an object that it does not mark."""

    PASS = "pass"  # noqa: S105
    """Sends it as it came; the audit has a line first."""
    HOLD = "hold"
    """Keeps it until a person decides."""
    DROP = "drop"
    """Settles it unsent; the audit has a line first."""


_SILENT: Final = (Unmarked.PASS, Unmarked.HOLD, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Timing):
    """Which instances go where, and what is done to them. Empty matches all."""

    name: str
    action: Action
    destination: str = ""
    """Where instances go."""
    destinations: tuple[str, ...] = ()
    """Where they go, if it is more than one place: each is owed every instance, and has
    it or not by itself. Holds :attr:`destination` too, once a route is made."""
    not_images: Unmarked = Unmarked.PASS
    """Of a marking route: what becomes of objects without a picture. A study without its
    reports, measurements and documents is not the study, there is nothing in them to
    mark, and the audit names each one that passes; so they pass unless it says
    otherwise. (A PDF may hold pictures all the same.)"""
    other_pixels: Unmarked = Unmarked.HOLD
    """Likewise of pictures in a form that can carry no mark: 1-bit, 32-bit, float,
    pixels kept elsewhere, too few grey levels. A classifier might read them, so nothing
    of the kind leaves before somebody has said so."""
    mark_quantities: bool = False
    """Whether segmentations, parametric maps, dose and PET in SUV are marked as pictures
    are, rather than be ``not_images``."""
    calling_ae_titles: tuple[str, ...] = ()
    called_ae_titles: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    sop_classes: tuple[str, ...] = ()
    where: tuple[Condition, ...] = ()
    """What any other attribute must be; see :mod:`dicom_node.condition`."""
    direct: tuple[str, ...] = ()
    """AE titles that open what this route marks without asking, by direct grants."""
    keep_codestream: bool = False
    """Whether a marking route keeps what compressed originals came in, sealed, so that
    they come back here as they were, byte for byte."""
    purpose: str = "treatment"
    """What originals are released for; a grant names those it is good for."""
    insecure: bool = False
    """Whether originals may go without TLS, by a grant to the address."""
    listing: bool = False
    """Whether a list of what was sent marked of a study follows it."""
    listing_after_s: float = 60.0
    """How long nothing of a study is sent before the list is."""
    accept_renamed: bool = False
    """Whether an object that an archive has renamed gives back its original."""

    def __post_init__(self) -> None:
        """Refuse what would say something of a route that it cannot do."""
        self.check(f"route {self.name!r}")
        if bool(self.destination) == bool(self.destinations):
            raise ConfigError(
                f"route {self.name!r}: it needs either destination or destinations",
                hint='destination = "pacs", or destinations = ["pacs", "research"].',
            )
        if len(set(self.destinations)) < len(self.destinations):
            raise ConfigError(f"route {self.name!r}: a destination is there twice")
        # The only assignment there is: one way of saying it is made of the other.
        destinations = self.destinations or (self.destination,)
        object.__setattr__(self, "destinations", destinations)
        said = (self.not_images, self.other_pixels, self.mark_quantities)
        if self.action is not Action.MARK and said != _SILENT:
            raise ConfigError(
                f"route {self.name!r}: not_images, other_pixels and mark_quantities are "
                "for routes that mark"
            )
        if self.listing and self.action is not Action.MARK:
            raise ConfigError(
                f"route {self.name!r}: listing is for routes that mark",
                hint="It lists what was sent marked.",
            )
        if self.keep_codestream and self.action is not Action.MARK:
            raise ConfigError(
                f"route {self.name!r}: keep_codestream is for routes that mark",
                hint="Where marks are taken off, what was kept is found without it.",
            )
        if self.direct and self.action is not Action.MARK:
            raise ConfigError(
                f"route {self.name!r}: direct is for routes that mark",
                hint="It says who opens what is marked without asking.",
            )
        if self.action is not Action.STRIP and (self.insecure or self.accept_renamed):
            raise ConfigError(
                f"route {self.name!r}: insecure and accept_renamed are for routes that "
                "strip"
            )

"""Where instances are sent, and how: tables ``[[destination]]`` of a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dicom_node.addressing import check_ae_title, check_port
from dicom_node.errors import ConfigError
from dicom_node.syntaxes import DEFAULT, Syntax

if TYPE_CHECKING:
    from pathlib import Path

SLOWEST: Final = 16_384
"""Bytes a second that a destination may be held to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where instances are sent."""

    name: str
    """How routes call it."""
    ae_title: str
    """The called AE title."""
    host: str
    port: int = 11112
    tls_ca: Path | None = None
    """Certificates that its own must be signed by, PEM; without it, no TLS."""
    tls_hostname: str = ""
    """The name in its certificate, if it is not ``host``."""
    transfer_syntaxes: tuple[Syntax, ...] = DEFAULT
    """What objects may be sent in, best first; the first that it accepts is taken."""
    timeout_s: float = 30.0
    """For the association and for each message, in seconds."""
    max_associations: int = 0
    """At once, from all processes of this node; 0 for as many as these open, one each."""
    max_bytes_per_s: int = 0
    """From all processes of this node together; 0 for as many as it takes."""
    one_study: bool = True
    """Whether each study has an association of its own, which ends when nothing more of
    it is due; else one carries whatever is due."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        check_ae_title(f"destination {self.name!r}", self.ae_title)
        check_port(f"destination {self.name!r}", self.port)
        for field, least in (("max_associations", 0), ("max_bytes_per_s", 0)):
            value = getattr(self, field)
            if value < least:
                raise ConfigError(f"destination {self.name!r}: {field} = {value}")
        if 0 < self.max_bytes_per_s < SLOWEST:
            raise ConfigError(
                f"destination {self.name!r}: max_bytes_per_s = {self.max_bytes_per_s}",
                hint=f"{SLOWEST} or more, or a receiver would not wait for the rest.",
            )
        if not self.transfer_syntaxes:
            raise ConfigError(
                f"destination {self.name!r}: transfer_syntaxes is empty",
                hint=f"Some of: {', '.join(Syntax)}.",
            )

    @property
    def address(self) -> str:
        """Return ``host:port``."""
        return f"{self.host}:{self.port}"

"""Where instances are sent, and how: tables ``[[destination]]`` of a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dicom_node.addressing import check_ae_title, check_port
from dicom_node.errors import ConfigError
from dicom_node.syntaxes import DEFAULT, Syntax

if TYPE_CHECKING:
    from pathlib import Path


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

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        check_ae_title(f"destination {self.name!r}", self.ae_title)
        check_port(f"destination {self.name!r}", self.port)
        if not self.transfer_syntaxes:
            raise ConfigError(
                f"destination {self.name!r}: transfer_syntaxes is empty",
                hint=f"Some of: {', '.join(Syntax)}.",
            )

    @property
    def address(self) -> str:
        """Return ``host:port``."""
        return f"{self.host}:{self.port}"

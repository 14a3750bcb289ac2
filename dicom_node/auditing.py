"""Where the audit goes beside the state folder, and what it says of patients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dicom_node.addressing import host_and_port
from dicom_node.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Auditing:
    """The table ``[audit]``."""

    syslog: str = ""
    """``host:port`` of a server that takes syslog over TLS (RFC 5425); empty for none."""
    ca: Path | None = None
    """Certificates that the server's must be signed by, PEM."""
    hostname: str = ""
    """The name in its certificate, if it is not the host of ``syslog``."""
    certificate: Path | None = None
    """What the node shows to it, PEM."""
    key: Path | None = None
    source: str = ""
    """How messages name this node; its AE title by default."""
    site: str = ""
    """How they name the site."""
    patients: bool = False
    """Whether patients' IDs are written down; else a pseudonym stands for each."""
    checkpoints: Path | None = None
    """A folder where signed checkpoints are kept too, better on another system."""

    def __post_init__(self) -> None:
        """Refuse what cannot work, or would send the audit in the clear."""
        if self.syslog:
            host_and_port("audit: syslog", self.syslog)
            if self.ca is None:
                raise ConfigError(
                    "audit: syslog needs ca",
                    hint="The audit is sent over TLS only, to a server that is known.",
                )
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("audit: certificate and key go together")

    @property
    def place(self) -> tuple[str, int]:
        """Return host and port of the syslog server."""
        return host_and_port("audit: syslog", self.syslog)

"""Where a node is looked at: tables ``[metrics]`` and ``[web]`` of a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dicom_node.addressing import check_port, is_loopback, network
from dicom_node.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Figures for Prometheus, and whether the node lives and is ready; counts only.

    Without TLS and without asking who is there: there are names of routes and
    destinations in it, and never a patient, a UID or what a stranger calls himself.
    """

    bind: str = "127.0.0.1"
    port: int = 11180

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        check_port("metrics", self.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """The page for the people who run the node."""

    bind: str = "127.0.0.1"
    """Loopback, unless there is a certificate."""
    port: int = 11181
    certificate: Path | None = None
    """PEM; with :attr:`key`."""
    key: Path | None = None
    idle_minutes: float = 15.0
    """How long somebody who does nothing stays logged in."""
    longest_hours: float = 10.0
    """How long anybody does."""
    oidc_issuer: str = ""
    """Of an OpenID provider that says who people are; empty: local users only."""
    oidc_client_id: str = ""
    oidc_secret_file: Path | None = None
    """What the provider knows this page by, if it wants to know it."""
    oidc_ca: Path | None = None
    """What the provider's certificate is signed by, if that is not a public authority."""
    oidc_roles_claim: str = "roles"
    """Which claim of the provider says what somebody may do."""
    address: str = ""
    """Under which people reach the page, ``https://host``, where that is not obvious: the
    provider sends them back there."""
    proxies: tuple[str, ...] = ()
    """Addresses or networks of proxies that say for whom they ask (X-Forwarded-For)."""

    def __post_init__(self) -> None:
        """Refuse what would let anybody listen, or could not work."""
        check_port("web", self.port)
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("web: certificate and key go together")
        if self.certificate is None and not is_loopback(self.bind):
            raise ConfigError(
                f"web: {self.bind} is reached from elsewhere, without a certificate",
                hint="certificate and key, or bind to loopback behind a proxy with TLS.",
            )
        for proxy in self.proxies:
            network("web: proxies", proxy)
        if not (self.idle_minutes > 0 and self.longest_hours > 0):
            raise ConfigError("web: idle_minutes and longest_hours are above 0")
        if bool(self.oidc_issuer) != bool(self.oidc_client_id):
            raise ConfigError("web: oidc_issuer and oidc_client_id go together")
        for name in ("oidc_issuer", "address"):
            _require_address(f"web: {name}", getattr(self, name))

    @property
    def origin(self) -> str:
        """Return under which address the page is reached."""
        scheme = "http" if self.certificate is None else "https"
        host = f"[{self.bind}]" if ":" in self.bind else self.bind
        return self.address.rstrip("/") or f"{scheme}://{host}:{self.port}"


def _require_address(field: str, text: str) -> None:
    """Return if an address is empty, or is https or loopback."""
    try:
        value = urlsplit(text)
        is_fine = value.scheme == "https" or is_loopback(value.hostname or "")
    except ValueError:
        is_fine = False
    if text and not is_fine:
        raise ConfigError(f"{field} = {text!r}", hint="https://host.example")

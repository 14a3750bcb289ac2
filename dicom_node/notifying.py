"""Whom the node tells when something needs a person: by e-mail, or by a webhook."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from dicom_node.addressing import host_and_port, is_loopback
from dicom_node.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


class Topic(StrEnum):
    """What there may be to tell."""

    QUARANTINED = "quarantined"
    HELD = "held"
    DESTINATION = "destination"
    """One is down, or up again."""
    DISK = "disk"
    """Too little is free to take anything in."""
    CERTIFICATE = "certificate"
    """One expires soon."""
    NODE = "node"
    """It was started, or stopped."""
    BACKLOG = "backlog"
    """Something has waited for long."""
    SECURITY = "security"
    """An original went out without TLS, somebody broke the glass, the audit is not
    whole."""


class Security(StrEnum):
    """How mail is handed over."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"
    """Only on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notifying:
    """One ``[[notify]]``: either mail or a webhook."""

    name: str
    about: tuple[str, ...] = tuple(Topic)
    smtp: str = ""
    """``host:port`` of a mail server."""
    security: Security = Security.STARTTLS
    sender: str = ""
    to: tuple[str, ...] = ()
    user: str = ""
    password_file: Path | None = None
    url: str = ""
    """Where a webhook listens."""
    secret_file: Path | None = None
    """What its messages are authenticated with; HMAC-SHA-256."""
    ca: Path | None = None
    """Certificates that the server's must be signed by; else the system's."""
    gather_s: float = 10.0
    """How long what is new waits for more of it."""
    every_s: float = 300.0
    """The least time between two messages."""
    uids: bool = False
    """Whether SOP Instance UIDs are told; else only numbers of jobs."""
    backlog_min: float = 60.0
    """Minutes after which what still waits is told."""
    certificate_days: float = 30.0
    """Days before a certificate expires, from which on that is told."""

    def __post_init__(self) -> None:
        """Refuse what cannot work, or would tell secrets in the clear."""
        where = f"notify {self.name!r}"
        if bool(self.smtp) == bool(self.url):
            raise ConfigError(f"{where}: either smtp or url")
        unknown = set(self.about) - set(Topic)
        if unknown:
            raise ConfigError(
                f"{where}: about {unknown.pop()!r}",
                hint=f"Some of: {', '.join(Topic)}.",
            )
        for one in ("gather_s", "every_s", "backlog_min", "certificate_days"):
            if not getattr(self, one) >= 0:
                raise ConfigError(f"{where}: {one} is not below 0")
        if self.smtp:
            host, _ = host_and_port(f"{where}: smtp", self.smtp)
            if not self.sender or not self.to:
                raise ConfigError(f"{where}: mail needs sender and to")
            if bool(self.user) != (self.password_file is not None):
                raise ConfigError(f"{where}: user and password_file go together")
            if self.security is Security.NONE and not is_loopback(host):
                raise ConfigError(
                    f"{where}: without TLS, mail goes to this machine only",
                    hint='security = "starttls" or "tls".',
                )
        if self.url:
            self._require_safe_url(where)

    def _require_safe_url(self, where: str) -> None:
        scheme, _, rest = self.url.partition("://")
        host = rest.partition("/")[0].rpartition(":")[0]
        if scheme != "https" and not (scheme == "http" and is_loopback(host)):
            raise ConfigError(f"{where}: url {self.url!r}", hint="https://...")
        if self.secret_file is None:
            raise ConfigError(
                f"{where}: url needs secret_file",
                hint="Whoever gets the message has to see that it is this node's.",
            )

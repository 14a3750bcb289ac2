"""Where instances are sent, and how: tables ``[[destination]]`` of a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from dicom_node.addressing import (
    check_ae_title,
    check_host,
    check_port,
    check_shown,
    is_ae_title,
    is_loopback,
)
from dicom_node.errors import ConfigError
from dicom_node.syntaxes import DEFAULT, Syntax

if TYPE_CHECKING:
    from pathlib import Path
    from urllib.parse import SplitResult

_PORTS = {"https": 443, "http": 80}


class Kind(StrEnum):
    """What a destination speaks."""

    DICOM = "dicom"
    """C-STORE over associations."""
    STOW = "stow"
    """STOW-RS over HTTP."""


SLOWEST: Final = 16_384
"""Bytes a second that a destination may be held to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where instances are sent."""

    name: str
    """How routes call it."""
    kind: Kind = Kind.DICOM
    ae_title: str = ""
    """The called AE title; of a STOW server, what grants call it."""
    calling_ae_title: str = ""
    """What this node calls itself there; empty for its own title."""
    passes_calling_ae_title: bool = False
    """Whether what is sent there carries the title of whoever it came from, as he said:
    that proves nothing, here or there."""
    host: str = ""
    port: int = 11112
    tls_ca: Path | None = None
    """Certificates that its own must be signed by, PEM; without it, no TLS."""
    tls_hostname: str = ""
    """The name in its certificate, if it is not ``host``."""
    commitment: bool = False
    """Whether it is asked to promise that it keeps what it was sent."""
    commitment_timeout_s: float = 3600.0
    """After which it is asked again."""
    commitment_attempts: int = 3
    """How often it is sent again what it took and will not keep; then it is held."""
    url: str = ""
    """Of a STOW server's DICOMweb service: ``/studies`` comes after it."""
    token_file: Path | None = None
    """Holds a bearer token, and is read for each request."""
    ca: Path | None = None
    """Certificates that the server's must be signed by, PEM; else the system's."""
    certificate: Path | None = None
    """What this node shows to whoever answers there, PEM; with it, TLS."""
    key: Path | None = None
    answer_timeout_s: float = 300.0
    """For the answer to a request, in seconds."""
    request_mb: float = 64.0
    """Mebibytes of instances that go in one request; a larger one goes alone."""
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
        where = f"destination {self.name!r}"
        if self.max_associations < 0 or self.max_bytes_per_s < 0:
            raise ConfigError(
                f"{where}: max_associations = {self.max_associations}, "
                f"max_bytes_per_s = {self.max_bytes_per_s}",
                hint="0 or more.",
            )
        if 0 < self.max_bytes_per_s < SLOWEST:
            raise ConfigError(
                f"{where}: max_bytes_per_s = {self.max_bytes_per_s}",
                hint=f"{SLOWEST} or more, or a receiver would not wait for the rest.",
            )
        if not self.transfer_syntaxes:
            raise ConfigError(
                f"{where}: transfer_syntaxes is empty",
                hint=f"Some of: {', '.join(Syntax)}.",
            )
        if self.kind is Kind.STOW:
            self._check_stow(where)
        else:
            self._check_dicom(where)

    def _check_dicom(self, where: str) -> None:
        if not self.ae_title or not self.host:
            raise ConfigError(f"{where}: it needs an ae_title and a host")
        check_ae_title(where, self.ae_title)
        if self.calling_ae_title:
            check_ae_title(where, self.calling_ae_title)
        if self.calling_ae_title and self.passes_calling_ae_title:
            raise ConfigError(
                f"{where}: calling_ae_title and passes_calling_ae_title",
                hint="One title for all, or that of each sender: not both.",
            )
        check_port(where, self.port)
        check_host(f"{where}: host", self.host)
        for name in ("url", "token_file", "ca"):
            if getattr(self, name):
                raise ConfigError(
                    f'{where}: {name} is for kind = "stow"',
                    hint="TLS of a DICOM destination: tls_ca and tls_hostname; and, if "
                    "it wants to see a certificate, certificate and key.",
                )
        check_shown(where, self.tls_ca, self.certificate, self.key)
        if self.commitment_timeout_s <= 0 or self.commitment_attempts < 0:
            raise ConfigError(
                f"{where}: commitment_timeout_s = {self.commitment_timeout_s}, "
                f"commitment_attempts = {self.commitment_attempts}",
                hint="Above 0; and 0 or more.",
            )

    def _check_stow(self, where: str) -> None:
        for name in (
            *("host", "tls_ca", "tls_hostname", "commitment"),
            *("calling_ae_title", "passes_calling_ae_title"),
        ):
            if getattr(self, name):
                raise ConfigError(
                    f'{where}: {name} is not for kind = "stow"',
                    hint="It has a url, and for TLS a ca, certificate and key.",
                )
        if self.ae_title:
            check_ae_title(where, self.ae_title)
        parts = self.url_parts
        if parts.scheme not in _PORTS or not parts.hostname or parts.query:
            raise ConfigError(
                f"{where}: url {self.url!r}",
                hint="As https://pacs.example/dicom-web, without /studies.",
            )
        check_host(f"{where}: url", parts.hostname)
        if not all("!" <= letter <= "~" for letter in parts.path):
            raise ConfigError(
                f"{where}: the path of url {self.url!r}",
                hint="ASCII only; write other characters as %C3%A4.",
            )
        if "@" in parts.netloc:
            raise ConfigError(
                f"{where}: url holds a name or a password",
                hint="Use token_file, or certificate and key.",
            )
        if (self.certificate is None) != (self.key is None):
            raise ConfigError(f"{where}: certificate and key go together")
        if parts.scheme == "http":
            self._check_plain(where, parts)
        if min(self.timeout_s, self.answer_timeout_s, self.request_mb) <= 0:
            raise ConfigError(f"{where}: a time or a size is not above 0")

    def _check_plain(self, where: str, parts: SplitResult) -> None:
        if self.ca or self.certificate:
            raise ConfigError(f"{where}: ca, certificate and key are for https")
        if self.token_file and not is_loopback(parts.hostname or ""):
            raise ConfigError(
                f"{where}: the token would go over the network in the clear",
                hint="Use https.",
            )

    def calling(self, own: str, sender: str) -> str:
        """Return what this node calls itself when it sends something there.

        Args:
            own: Its own title.
            sender: That of whoever it came from; empty if nobody has said one.
        """
        if self.passes_calling_ae_title and is_ae_title(sender):
            return sender
        return self.calling_ae_title or own

    @property
    def has_tls(self) -> bool:
        """Return whether whoever answers there has to show a certificate."""
        if self.kind is Kind.DICOM:
            return self.tls_ca is not None
        return self.url_parts.scheme == "https"

    @property
    def url_parts(self) -> SplitResult:
        """Return :attr:`url`, taken apart.

        Raises:
            ConfigError: It is none.
        """
        try:
            parts = urlsplit(self.url)
            parts.port  # noqa: B018 it may be none
        except ValueError as error:
            raise ConfigError(f"destination {self.name!r}: url: {error}") from error
        return parts

    @property
    def address(self) -> str:
        """Return ``host:port``."""
        if self.kind is Kind.DICOM:
            return f"{self.host}:{self.port}"
        parts = self.url_parts
        return f"{parts.hostname}:{parts.port or _PORTS[parts.scheme]}"

    @property
    def named(self) -> str:
        """Return how people are told of it."""
        return f"{self.name} ({self.address})"

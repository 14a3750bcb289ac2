"""Where instances come in, who may send them, and how much one sender may take up.

These are the tables ``[[listener]]``, ``[[peer]]`` and ``[guard]`` of a configuration.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from dicom_node.addressing import (
    check_ae_title,
    check_port,
    check_shown,
    is_loopback,
    network,
)
from dicom_node.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_FINGERPRINT: Final = re.compile("[0-9a-f]{64}")
_NAME: Final = re.compile(r"[0-9a-z_-]+(\.[0-9a-z_-]+)*")


class UnknownPeers(StrEnum):
    """What becomes of a calling AE title that no ``[[peer]]`` has."""

    ACCEPT = "accept"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """One port: where, and with which certificates."""

    bind: str = "127.0.0.1"
    port: int = 11112
    certificate: Path | None = None
    """What it shows, PEM, with the certificates in between; without it, no TLS."""
    key: Path | None = None
    client_ca: Path | None = None
    """Certificates that peers' must be signed by, PEM; without it, none is asked for."""
    crl: Path | None = None
    """Certificates that were revoked, PEM."""
    plaintext: bool = False
    """Whether it may listen without TLS where others than this machine reach it."""
    unknown_peers: UnknownPeers | None = None
    """None: refused where certificates are asked for, else accepted."""

    def __post_init__(self) -> None:
        """Refuse what cannot work, and what would be open without anybody saying so."""
        where = f"listener {self.bind}:{self.port}"
        check_port(where, self.port)
        if (self.certificate is None) != (self.key is None):
            raise ConfigError(f"{where}: certificate and key go together")
        if self.certificate is None and (self.client_ca or self.crl):
            raise ConfigError(
                f"{where}: client_ca and crl are for TLS",
                hint="It needs a certificate and a key of its own too.",
            )
        if self.crl is not None and self.client_ca is None:
            raise ConfigError(f"{where}: crl is for certificates of a client_ca")
        if self.certificate is not None and self.plaintext:
            raise ConfigError(f"{where}: plaintext = true, and a certificate")
        if self.certificate is None and not (self.plaintext or is_loopback(self.bind)):
            raise ConfigError(
                f"{where} would be open to the network without TLS",
                hint="Give it a certificate, key and client_ca; or, on a network that "
                "only modalities are on, a [[listener]] with plaintext = true.",
            )

        says_who = self.client_ca is not None or self.unknown_peers is not None
        if not (says_who or self.plaintext or is_loopback(self.bind)):
            raise ConfigError(
                f"{where} would be open to everybody who reaches it",
                hint="TLS without a client_ca says nothing of who calls. Give it one; or "
                'unknown_peers = "refuse" with a [[peer]] for each, or "accept".',
            )

    @property
    def asks_for_certificates(self) -> bool:
        """Return whether a peer without a certificate is turned away."""
        return self.client_ca is not None

    @property
    def refuses_unknown(self) -> bool:
        """Return whether a calling AE title needs a ``[[peer]]``."""
        if self.unknown_peers is None:
            return self.asks_for_certificates
        return self.unknown_peers is UnknownPeers.REFUSE


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A sender: its AE title, and what whoever uses that title has to show."""

    ae_title: str
    fingerprints: tuple[str, ...] = ()
    """Of the keys of its certificates (:func:`dicom_node.grants.fingerprint`)."""
    names: tuple[str, ...] = ()
    """DNS names, one of which its certificate must have as Subject Alternative Name;
    whole and as they are, so wildcards in certificates match nothing."""
    addresses: tuple[str, ...] = ()
    """Networks that it calls from; empty: any."""
    max_associations: int = 0
    """At once, in each receiving process; 0: as many as any peer."""
    commitment: bool = False
    """Whether it may ask if what it sent is safe here (storage commitment)."""
    host: str = ""
    """Where it is told; else on its own association, if that is still open."""
    port: int = 11112
    tls_ca: Path | None = None
    """Certificates that its own must be signed by there, PEM; without it, no TLS."""
    tls_hostname: str = ""
    """The name in its certificate, if it is not ``host``."""
    certificate: Path | None = None
    """What this node shows there, PEM."""
    key: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot match."""
        where = f"peer {self.ae_title!r}"
        check_shown(where, self.tls_ca, self.certificate, self.key)
        check_port(where, self.port)
        if self.commitment and not self.is_proven:
            raise ConfigError(
                f"{where}: commitment = true, and nothing but a title says who it is",
                hint="An AE title alone proves nothing: give it fingerprints, names or "
                "addresses.",
            )
        check_ae_title(where, self.ae_title)
        for fingerprint in self.fingerprints:
            if not _FINGERPRINT.fullmatch(fingerprint):
                raise ConfigError(
                    f"{where}: fingerprint {fingerprint!r}",
                    hint="64 lower-case hexadecimal digits: the SHA-256 of the public "
                    "key, as the log names it when it refuses.",
                )
        for name in self.names:
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    f"{where}: name {name!r}",
                    hint="A whole DNS name in lower case; no wildcards.",
                )
        for address in self.addresses:
            network(f"{where}: addresses", address)
        if self.max_associations < 0:
            raise ConfigError(f"{where}: max_associations {self.max_associations}")

    @property
    def needs_certificate(self) -> bool:
        """Return whether its title is nothing without a certificate."""
        return bool(self.fingerprints or self.names)

    @property
    def is_proven(self) -> bool:
        """Return whether more than its title says who it is."""
        return self.needs_certificate or bool(self.addresses)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarding:
    """Limits on what peers take up. Each receiving process counts for itself."""

    max_waiting: int = 1000
    """Connections that have not asked for an association yet. Where there are more, the
    oldest of whoever has most of them is closed."""
    max_per_address: int = 20
    """Associations at once from one address."""
    max_per_title: int = 20
    """Associations at once under one calling AE title."""
    request_s: float = 10.0
    """For the TLS handshake and the association request together, in seconds."""
    pdu_s: float = 10.0
    """For one PDU, from its first byte to its last, in seconds."""
    slowest_bytes_per_s: int = 4096
    """A message that comes more slowly is cut off, after a grace of ``timeout_s``."""
    max_object_mb: int = 8192
    """Mebibytes of one instance."""

    def __post_init__(self) -> None:
        """Refuse what would let nobody in."""
        for name in (
            "max_waiting",
            "max_per_address",
            "max_per_title",
            "max_object_mb",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"guard: {name} {getattr(self, name)}", hint="1 or more."
                )
        if self.request_s <= 0 or self.pdu_s <= 0 or self.slowest_bytes_per_s < 0:
            raise ConfigError("guard: a time or a rate is not above 0")

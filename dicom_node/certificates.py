"""Certificates of a server: its own, and what those of its callers are checked against.

Files are read again when they change, since a list of revoked certificates is good for a
few days only. What cannot be read changes nothing, and is said.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from dicom_node.errors import ConfigError
from dicom_node.grants import fingerprint

if TYPE_CHECKING:
    from pathlib import Path

    from dicom_node.listening import Listening

logger = logging.getLogger(__name__)

# For TLS 1.2; version 1.3 has no others (RFC 9325, 4.2).
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


@dataclass(frozen=True, slots=True)
class Shown:
    """What a caller's certificate says, which TLS has checked."""

    fingerprint: str
    """:func:`~dicom_node.grants.fingerprint` of its key."""
    names: frozenset[str]
    """DNS names among its Subject Alternative Names, in lower case, as they stand."""

    @classmethod
    def of(cls, encoded: bytes) -> Shown:
        """Return what a certificate in DER says.

        Raises:
            ValueError: It cannot be read: whoever shows it is nobody.
        """
        try:
            certificate = x509.load_der_x509_certificate(encoded)
            key = fingerprint(certificate)
            return cls(key, frozenset(_dns_names(certificate)))
        except (x509.DuplicateExtension, UnsupportedAlgorithm) as error:
            raise ValueError("the certificate cannot be read") from error


def _dns_names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except x509.ExtensionNotFound:
        return []  # a common name is no identity (RFC 9525, 2)
    return [name.lower() for name in found.value.get_values_for_type(x509.DNSName)]


class ServerTls:
    """TLS of one server, with what its files say now."""

    def __init__(
        self,
        where: str,
        *,
        certificate: Path,
        key: Path,
        client_ca: Path | None,
        crl: Path | None,
    ) -> None:
        """Read the files.

        Args:
            where: How errors name the server.
            certificate: What it shows, PEM, with the certificates in between.
            key: Its key, PEM, not encrypted.
            client_ca: What callers' certificates must be signed by; None: none is
                asked for.
            crl: Those that were revoked.

        Raises:
            ConfigError: They cannot be used.
        """
        self._where = where
        self._certificate, self._key = certificate, key
        self._client_ca, self._crl = client_ca, crl
        self._stamps, self._said = self._found(), ""
        self.context = self._made()

    @classmethod
    def of(cls, door: Listening) -> ServerTls | None:
        """Return the TLS of a listener; None if it has none.

        Raises:
            ConfigError: Its certificates cannot be used.
        """
        if door.certificate is None or door.key is None:
            return None
        return cls(
            f"listener {door.bind}:{door.port}",
            certificate=door.certificate,
            key=door.key,
            client_ca=door.client_ca,
            crl=door.crl,
        )

    def renew(self) -> bool:
        """Read the files again if one has changed.

        Returns:
            Whether :attr:`context` is another now. What was read before stays where
            the files cannot be used.
        """
        stamps = self._found()
        if stamps == self._stamps:
            return False
        try:
            self.context = self._made()
        except ConfigError as error:
            # Tried again each time, and said once: why may pass without a trace in them.
            if str(error) != self._said:
                self._said = str(error)
                logger.error("going on with what was read before: %s", error)  # noqa: TRY400
            return False
        self._stamps, self._said = stamps, ""
        logger.info("certificates were read again")
        return True

    def _made(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        # A session taken up again would not be checked against what was revoked since.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        try:
            # Without a password of ours, OpenSSL would ask for one on the terminal.
            context.load_cert_chain(self._certificate, self._key, lambda: b"")
            if self._client_ca is not None:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(self._client_ca)
            if self._crl is not None:
                context.load_verify_locations(self._crl)
                context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        except OSError as error:
            raise ConfigError(
                f"{self._where}: the certificates cannot be used: {error}",
                hint="certificate, key, client_ca and crl are files in PEM; the key is "
                "not encrypted.",
            ) from error
        return context

    def _found(self) -> list[tuple[int, int, int, int] | None]:
        """Return what changes when a file does."""
        files = (self._certificate, self._key, self._client_ca, self._crl)
        return [_stamp(file) for file in files if file is not None]


def _stamp(file: Path) -> tuple[int, int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

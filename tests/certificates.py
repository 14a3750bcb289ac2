"""Certificates, made when they are needed, and lists of those that were revoked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dicom_node.grants import fingerprint

DAY = timedelta(days=1)
LOOPBACK_NAMES = (x509.IPAddress(IPv4Address("127.0.0.1")),)


@dataclass(frozen=True)
class Credential:
    """A certificate and its key, in files."""

    certificate: x509.Certificate
    private_key: ec.EllipticCurvePrivateKey
    file: Path
    key_file: Path

    @property
    def name(self) -> str:
        (found,) = self.certificate.subject
        return str(found.value)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.certificate)


def _write(folder: Path, name: str, made: x509.Certificate, key: object) -> Credential:
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    file, key_file = folder / f"{name}-cert.pem", folder / f"{name}-key.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return Credential(made, key, file, key_file)


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


class Authority:
    """Certifies, and takes back."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.revoked: list[int] = []
        self.own = self._issue(name, ca=True)

    def certify(
        self,
        name: str,
        *,
        until: timedelta = DAY,
        since: timedelta = -2 * DAY,
        names: Sequence[x509.GeneralName] = LOOPBACK_NAMES,
        usages: Sequence[x509.ObjectIdentifier] = (),
        key: ec.EllipticCurvePrivateKey | None = None,
        signed_by: Credential | None = None,
    ) -> Credential:
        """Make a certificate; ``names`` are Subject Alternative Names, if any."""
        return self._issue(
            name,
            until=until,
            since=since,
            names=names,
            usages=usages,
            key=key,
            signed_by=signed_by,
        )

    def _issue(
        self,
        name: str,
        *,
        ca: bool = False,
        until: timedelta = DAY,
        since: timedelta = -2 * DAY,
        names: Sequence[x509.GeneralName] = LOOPBACK_NAMES,
        usages: Sequence[x509.ObjectIdentifier] = (),
        key: ec.EllipticCurvePrivateKey | None = None,
        signed_by: Credential | None = None,
    ) -> Credential:
        key, now = key or ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        signing = key if ca else (signed_by or self.own).private_key
        issuer = self.name if signed_by is None else signed_by.name
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + since)
            .not_valid_after(now + until)
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
            .add_extension(_usage(ca=ca), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(
                    signing.public_key()
                ),
                critical=False,
            )
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName(names), critical=False
            )
        if usages:
            builder = builder.add_extension(
                x509.ExtendedKeyUsage(usages), critical=False
            )
        made = builder.sign(signing, hashes.SHA256())
        return _write(self.folder, name, made, key)

    def crl(self) -> Path:
        """Write the list of those revoked, and return where it lies."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name(self.name))
            .last_update(now - DAY)
            .next_update(now + DAY)
        )
        for serial in self.revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(serial)
                .revocation_date(now - DAY)
                .build()
            )
        made = builder.sign(self.own.private_key, hashes.SHA256())
        file = self.folder / f"{self.name}-crl.pem"
        file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        return file

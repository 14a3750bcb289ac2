"""Certificates, keys and lists of a configuration: good now, for long, for one another.

Functions whose names begin with ``judged`` are pure: certificates and the time go in.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from dicom_node.doctor.finding import note, ok, wrong
from dicom_node.usability import tables_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.types import (
        PrivateKeyTypes,
        PublicKeyTypes,
    )

    from dicom_node.doctor.case import Case
    from dicom_node.doctor.finding import Finding

SOON: Final = timedelta(days=30)
_AUTHORITIES: Final = ("client_ca", "tls_ca", "ca", "oidc_ca")
_FILES: Final = (*_AUTHORITIES, "certificate", "crl")
_SERVERS: Final = ("listener", "release", "web")
"""Whose certificates are looked at by those who call: names have to be in them."""


def papers(case: Case) -> Iterator[Finding]:
    """Yield what is to be said of each file; each is looked at once."""
    if case.config is None:
        return
    seen, fine = set[Path](), 0
    for where, table in tables_of(case.config):
        is_server = where.startswith(_SERVERS)
        found = _shown(table, seen, case.now, is_server=is_server)
        certificate = _new(table, "certificate", seen)
        fine += certificate is not None and not found
        found += _believed(table, seen, case.now)
        seen.update(file for file in map(partial(_of, table), _FILES) if file)
        yield from (one._replace(says=f"{where}: {one.says}") for one in found)
    if fine:
        yield ok(f"{fine} good for more than {SOON.days} days, with their keys")


def _shown(
    table: object, seen: set[Path], now: datetime, *, is_server: bool
) -> list[Finding]:
    """Return what is wrong with what a table shows to others."""
    certificate, key = _new(table, "certificate", seen), _of(table, "key")
    if certificate is None:
        return []
    found: list[Finding] = []
    shown = _certificates(certificate, found)
    found += judged_chain(str(certificate), shown, now)
    if is_server and shown:
        found += judged_names(str(certificate), shown[0])
    if key is not None:
        found += _judged_key(key, shown[:1])
    return found


def _believed(table: object, seen: set[Path], now: datetime) -> list[Finding]:
    """Return what is wrong with what a table goes by when others show something."""
    found: list[Finding] = []
    authorities: list[x509.Certificate] = []
    for name in _AUTHORITIES:
        if file := _of(table, name):
            certificates = _certificates(file, found)
            if file not in seen:
                found += judged_authorities(str(file), certificates, now)
            authorities += certificates
    if crl := _new(table, "crl", seen):
        found += _judged_list(crl, authorities, now)
    return found


def judged_chain(
    named: str, shown: Sequence[x509.Certificate], now: datetime
) -> Iterator[Finding]:
    """Yield what is wrong with a certificate and those in between.

    Args:
        named: Their file.
        shown: The certificate first, each signed by the next.
        now: Aware.
    """
    for one in shown:
        yield from _judged_time(named, one, now)
    for one, above in pairwise(shown):
        try:
            one.verify_directly_issued_by(above)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            yield wrong(
                f"in {named} a certificate is not signed by the one after it",
                "The node's own comes first, then those in between, in their order.",
            )
            return


def judged_authorities(
    named: str, authorities: Sequence[x509.Certificate], now: datetime
) -> Iterator[Finding]:
    """Yield if certificates of authorities are good no longer.

    Args:
        named: Their file.
        authorities: Any of which others may be signed by.
        now: Aware.
    """
    spent = [one for one in authorities if one.not_valid_after_utc < now]
    if spent and len(spent) == len(authorities):
        yield wrong(
            f"{named} has run out on {spent[0].not_valid_after_utc:%Y-%m-%d}: nothing "
            "that it has signed is believed",
            "Ask the authority for its new certificate.",
        )
    elif spent:
        yield note(f"{len(spent)} certificates in {named} have run out")


def judged_names(named: str, certificate: x509.Certificate) -> Iterator[Finding]:
    """Yield if a server's certificate names no server (RFC 9525, 2)."""
    try:
        certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        yield note(
            f"{named} has no Subject Alternative Name: those who check names refuse it",
            "Have it issued with the names and addresses that others call it by.",
        )
    except ValueError:
        yield wrong(f"the extensions of {named} cannot be read")


def judged_pair(
    named: str, key: PrivateKeyTypes, certificate: x509.Certificate
) -> Iterator[Finding]:
    """Yield if a key is not that of a certificate."""
    if _public(key.public_key()) != _public(certificate.public_key()):
        yield wrong(
            f"{named} is not the key of the certificate beside it",
            "One of the two was renewed, and the other was not.",
        )


def judged_list(
    named: str,
    revoked: x509.CertificateRevocationList,
    authorities: Sequence[x509.Certificate],
    now: datetime,
) -> Iterator[Finding]:
    """Yield if a list of revoked certificates is none that can be gone by.

    Args:
        named: Its file.
        revoked: The list.
        authorities: Which of one has to have signed it.
        now: Aware.
    """
    end = revoked.next_update_utc
    if end is not None and end < now:
        yield wrong(
            f"{named} has run out on {end:%Y-%m-%d %H:%M}: every caller is refused",
            "Fetch the authority's list of today, and go on doing so.",
        )
    if authorities and not any(
        one.subject == revoked.issuer and _has_signed(one, revoked)
        for one in authorities
    ):
        yield wrong(
            f"{named} is signed by none of the authorities in client_ca",
            "It has to be the list of the authority that certifies the callers.",
        )


def _judged_time(
    named: str, certificate: x509.Certificate, now: datetime
) -> Iterator[Finding]:
    end, begin = certificate.not_valid_after_utc, certificate.not_valid_before_utc
    if end < now:
        yield wrong(
            f"{named} has run out on {end:%Y-%m-%d}",
            "Renew it, and put the new one in its place: it is read again by itself.",
        )
    elif begin > now:
        yield wrong(
            f"{named} is good from {begin:%Y-%m-%d %H:%M} UTC only",
            "Is the clock of this machine right?",
        )
    elif end - now < SOON:
        yield note(f"{named} runs out on {end:%Y-%m-%d}", "Renew it.")


def _judged_key(file: Path, shown: Sequence[x509.Certificate]) -> Iterator[Finding]:
    try:
        content, mode = file.read_bytes(), file.stat().st_mode
    except OSError as error:
        yield wrong(f"{file} cannot be read: {error.strerror}")
        return
    if mode & 0o007:
        yield wrong(
            f"everybody may read the key {file} (mode {mode & 0o777:o})",
            f"chmod 600 {file}; and have another made: this one may be known.",
        )
    try:
        key = load_pem_private_key(content, None)
    except TypeError:
        yield wrong(
            f"the key {file} is encrypted, and the node has nobody to ask",
            "openssl pkey -in KEY -out KEY.open, for the node's account only.",
        )
    except (ValueError, UnsupportedAlgorithm):
        yield wrong(f"{file} is no private key in PEM")
    else:
        for certificate in shown:
            yield from judged_pair(str(file), key, certificate)


def _judged_list(
    file: Path, authorities: Sequence[x509.Certificate], now: datetime
) -> Iterator[Finding]:
    try:
        revoked = x509.load_pem_x509_crl(file.read_bytes())
    except OSError as error:
        yield wrong(f"{file} cannot be read: {error.strerror}")
    except ValueError:
        yield wrong(f"{file} is no list of revoked certificates in PEM")
    else:
        yield from judged_list(str(file), revoked, authorities, now)


def _certificates(file: Path, found: list[Finding]) -> list[x509.Certificate]:
    """Return what a file holds; where it cannot be read, say so and return nothing."""
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())
    except OSError as error:
        found.append(wrong(f"{file} cannot be read: {error.strerror}"))
    except ValueError:
        found.append(wrong(f"{file} holds no certificate in PEM"))
    return []


def _has_signed(
    authority: x509.Certificate, revoked: x509.CertificateRevocationList
) -> bool:
    try:
        return revoked.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return False


def _public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _new(table: object, name: str, seen: set[Path]) -> Path | None:
    """Return a file that a table names, if it was not looked at before."""
    file = _of(table, name)
    return None if file in seen else file


def _of(table: object, name: str) -> Path | None:
    value = getattr(table, name, None)
    return value if isinstance(value, Path) else None

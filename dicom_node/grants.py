"""Who may have originals: grants, given and taken back, never changed.

An AE title alone proves nothing: anyone can claim one. A grant therefore names, beside
the title, either the key of the receiver's TLS certificate, or, for a site without TLS
and said so in as many words, the address that the original may be sent to.
"""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dicom_node.errors import LedgerError, NotGrantedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from cryptography import x509

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS grant_given (
    id           INTEGER PRIMARY KEY,
    ae_title     TEXT NOT NULL,
    fingerprint  TEXT NOT NULL,  -- of the certificate's key; '' for an insecure grant
    address      TEXT NOT NULL,  -- host:port; '' for a grant to a certificate
    not_after    TEXT NOT NULL,
    granted_by   TEXT NOT NULL,
    given        TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS grant_revoked (
    grant_id     INTEGER NOT NULL REFERENCES grant_given (id),
    revoked_by   TEXT NOT NULL,
    revoked      TEXT NOT NULL
);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """Who is about to be sent an original."""

    ae_title: str
    address: str
    """``host:port``."""
    fingerprint: str
    """:func:`fingerprint` of the certificate it has just shown; empty without TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One grant, as given."""

    id: int
    ae_title: str
    fingerprint: str
    address: str
    not_after: datetime
    granted_by: str
    is_revoked: bool

    def covers(self, receiver: Receiver, now: datetime) -> bool:
        """Say whether ``receiver`` may have originals by this grant."""
        if (
            self.is_revoked
            or now > self.not_after
            or self.ae_title != receiver.ae_title
        ):
            return False
        if self.fingerprint:
            return self.fingerprint == receiver.fingerprint
        return self.address == receiver.address and not receiver.fingerprint


class Grants:
    """A SQLite file of grants; one connection, one thread."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it.

        Raises:
            LedgerError: It cannot be opened.
        """
        with _translated():
            self._database = sqlite3.connect(path, timeout=30, isolation_level=None)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.executescript(_SCHEMA)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._database.close()

    def add(
        self,
        *,
        ae_title: str,
        fingerprint: str,
        address: str,
        not_after: datetime,
        granted_by: str,
        now: datetime,
    ) -> int:
        """Give a grant, to a certificate or to an address, and return its number.

        Raises:
            ValueError: To both or to neither.
        """
        if bool(fingerprint) == bool(address):
            raise ValueError("a grant names a certificate or an address, one of them")
        with _translated():
            added = self._database.execute(
                "INSERT INTO grant_given"
                " (ae_title, fingerprint, address, not_after, granted_by, given)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    ae_title,
                    fingerprint,
                    address,
                    not_after.astimezone(UTC).isoformat(),
                    granted_by,
                    now.astimezone(UTC).isoformat(),
                ),
            )
        return int(added.lastrowid or 0)

    def revoke(self, grant_id: int, *, revoked_by: str, now: datetime) -> bool:
        """Take a grant back; False if there is none of that number."""
        with _translated():
            if grant_id not in {grant.id for grant in self.all()}:
                return False
            self._database.execute(
                "INSERT INTO grant_revoked VALUES (?, ?, ?)",
                (grant_id, revoked_by, now.astimezone(UTC).isoformat()),
            )
        return True

    def all(self) -> list[Grant]:
        """Return every grant ever given, oldest first."""
        with _translated():
            rows = self._database.execute(
                "SELECT id, ae_title, fingerprint, address, not_after, granted_by,"
                " EXISTS (SELECT 1 FROM grant_revoked WHERE grant_id = id)"
                " FROM grant_given ORDER BY id"
            ).fetchall()
        return [
            Grant(
                id=row[0],
                ae_title=row[1],
                fingerprint=row[2],
                address=row[3],
                not_after=datetime.fromisoformat(row[4]),
                granted_by=row[5],
                is_revoked=bool(row[6]),
            )
            for row in rows
        ]

    def require(self, receiver: Receiver, now: datetime) -> Grant:
        """Return the grant by which ``receiver`` may have originals.

        Raises:
            NotGrantedError: There is none.
        """
        for grant in self.all():
            if grant.covers(receiver, now):
                return grant
        shown = receiver.fingerprint or "none"
        raise NotGrantedError(
            f"{receiver.ae_title} at {receiver.address} holds no grant for originals "
            f"(certificate key: {shown})",
            hint="miadmark grant add --ae-title ... --certificate FILE",
        )


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate's public key, in hexadecimal.

    It stays the same when a certificate is renewed for the same key (RFC 7469, 2.4).
    """
    key = certificate.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(key).hexdigest()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise LedgerError(
            f"the grants cannot be used: {error}",
            hint="Check that the state folder is writable and its disk not full.",
        ) from error

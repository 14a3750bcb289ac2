"""Grants on record: proposed, approved by others, revoked; signed, and never changed.

Each entry is one line of JSON that names the digest of the entry before, signed with the
site's signing key. So an entry cannot be changed, put in or taken out by somebody who can
write the file but not open the keys, and an older copy of the file is seen to be older by
the count that the key ring keeps.

Who proposes and who approves are people's accounts on this machine. That is as strong as
those accounts: an administrator who can be both people can give a grant alone, and the
audit, kept elsewhere, is what shows it.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dicom_node.authorising import Grant, GrantMode, Terms, explain, granting
from dicom_node.errors import LedgerError, NotGrantedError
from dicom_node.keys.charter import GrantEntry
from dicom_node.tables import FAILURES, Tables, opened
from miadmark_core.sealing.suites import HYBRID

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cryptography import x509

    from dicom_node.authorising import Request
    from dicom_node.keys.keyring import Keyring
    from dicom_node.queueing import Queueing

APPROVALS: Final = 2
"""How many people have to agree, until a site says otherwise."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entry (
    number     INTEGER PRIMARY KEY,
    body       BLOB NOT NULL,
    signature  BLOB NOT NULL
);
"""
_DATES: Final = ("not_before", "not_after")
_LISTS: Final = ("ae_titles", "purposes", "sop_classes", "studies")


class Grants(Tables):
    """A table of grants; one connection, one thread."""

    def __init__(self, place: Path | Queueing, keyring: Keyring) -> None:
        """Open the table, or make it.

        Args:
            place: Its file, or a database on a server.
            keyring: Whose keys sign.

        Raises:
            LedgerError: It cannot be opened.
        """
        self._path = getattr(place, "told", place)
        self._keyring = keyring
        self._read: list[Grant] = []
        self._approvals, self._number, self._before = APPROVALS, 0, ""
        self._signed_by = 0
        self._digests: list[str] = []
        self._agreeing: dict[int, set[str]] = {}
        """Who wants fewer approvals, by how many."""
        with self._translated():
            self._database = opened(place, _SCHEMA)

    @property
    def approvals(self) -> int:
        """Return how many people have to agree to a new grant."""
        self.all()
        return self._approvals

    def propose(self, terms: Terms, *, by: str, now: datetime) -> int:
        """Put a grant on record and return its number; it counts once approved."""
        values = asdict(terms) | {
            name: getattr(terms, name).astimezone(UTC).isoformat() for name in _DATES
        }
        return self._add({"did": "propose", "terms": values}, by, now)

    def approve(self, grant_id: int, *, by: str, now: datetime) -> Grant:
        """Agree to a grant, and return it.

        Raises:
            NotGrantedError: There is none, it was revoked, or ``by`` agrees already.
        """
        grant = self.grant(grant_id)
        if grant.revoked_by:
            raise NotGrantedError(f"grant {grant_id} was revoked by {grant.revoked_by}")
        if by in {grant.proposed_by, *grant.approved_by}:
            raise NotGrantedError(
                f"{by} agrees to grant {grant_id} already",
                hint=f"It takes {grant.approvals_needed} different people: sudo -u "
                "miadmark miadmark grant approve, from another's account.",
            )
        self._add({"did": "approve", "grant": grant_id}, by, now)
        return self.grant(grant_id)

    def revoke(self, grant_id: int, *, by: str, now: datetime) -> Grant:
        """Take a grant back, and return it; one person is enough.

        Raises:
            NotGrantedError: There is none of that number.
        """
        grant = self.grant(grant_id)
        if not grant.revoked_by:
            self._add({"did": "revoke", "grant": grant_id}, by, now)
        return self.grant(grant_id)

    def set_approvals(self, count: int, *, by: str, now: datetime) -> None:
        """Let new grants take that many people from now on.

        Fewer than before count once as many people as before have said the same.
        """
        if count < 1:
            raise ValueError("at least one person has to agree")
        self._add({"did": "rule", "approvals": count}, by, now)

    def grant(self, grant_id: int) -> Grant:
        """Return the grant of that number.

        Raises:
            NotGrantedError: There is none.
        """
        for grant in self.all():
            if grant.id == grant_id:
                return grant
        raise NotGrantedError(
            f"there is no grant {grant_id}", hint="miadmark grant list"
        )

    def all(self) -> list[Grant]:
        """Return every grant ever proposed, oldest first.

        Raises:
            LedgerError: An entry is not as it was signed, or the file is an old copy.
        """
        wanted = self._keyring.grant_entries()
        self._read_on()  # after the count, which is kept after the entry
        if (
            wanted
            and self._number >= wanted
            and (self._digests[wanted - 1] != self._keyring.grant_head())
        ):
            raise LedgerError(
                f"{self._path} has another history than this site's",
                hint="Take it from your backup, and tell whoever looks after security.",
            )
        if self._number < wanted:
            raise LedgerError(
                f"{self._path} is an older copy: {self._number} of {wanted} entries",
                hint="A grant that was revoked since could be in force in it.",
            )
        return list(self._read)

    def _read_on(self) -> None:
        with self._translated():
            rows = self._database.execute(
                "SELECT number, body, signature FROM entry WHERE number > ?"
                " ORDER BY number",
                (self._number,),
            ).fetchall()
        for number, body, signature in rows:
            self._take(number, body, signature)

    def entries(self) -> list[GrantEntry]:
        """Return every entry as it was signed, for the other nodes of this site.

        Raises:
            LedgerError: An entry is not as it was signed, or the file is an old copy.
        """
        self.all()
        with self._translated():
            rows = self._database.execute(
                "SELECT number, body, signature FROM entry WHERE number <= ?"
                " ORDER BY number",
                (self._number,),
            ).fetchall()
        return [GrantEntry(*row) for row in rows]

    def take(self, entries: Sequence[GrantEntry]) -> None:
        """Take over what another node of this site has entered since.

        Args:
            entries: All of them: :meth:`entries`.

        Raises:
            LedgerError: They are not this site's, or tell another history.
        """
        try:
            with self._translated(), self._database.transaction(alone="grants"):
                mine = self.entries()
                self._require_begins(entries, mine)
                self._database.executemany(
                    "INSERT INTO entry VALUES (?, ?, ?)", entries[len(mine) :]
                )
                self.all()  # each is believed before it is kept
        except BaseException:
            self._forget()
            raise
        self._keyring.keep_grant_entries(self._number, self._before)

    def _require_begins(
        self, entries: Sequence[GrantEntry], mine: Sequence[GrantEntry]
    ) -> None:
        if list(entries[: len(mine)]) != mine:
            raise LedgerError(
                f"{self._path} has another history than the site's charter",
                hint="Two folders have issued charters of one site. Tell whoever looks "
                "after security.",
            )

    def _forget(self) -> None:
        """Read everything again at the next look."""
        self._read, self._approvals, self._number = [], APPROVALS, 0
        self._before, self._signed_by = "", 0
        self._digests, self._agreeing = [], {}

    def require(self, request: Request, now: datetime) -> Grant:
        """Return the grant by which ``request`` is allowed.

        Raises:
            NotGrantedError: There is none.
        """
        grants = self.all()
        grant = granting(grants, request, now)
        if grant is not None:
            return grant
        near = [f"{e.grant.id}: {e.verdict}" for e in explain(grants, request, now)]
        shown = request.fingerprint or "none"
        raise NotGrantedError(
            f"{request.ae_title} {request.address} holds no grant for originals "
            f"(certificate key: {shown}; "
            + ("; ".join(near[-5:]) or "no grants")
            + ")",
            hint="miadmark grant explain says which condition fails; miadmark grant add "
            "proposes one.",
        )

    def _add(self, act: dict[str, Any], by: str, now: datetime) -> int:
        if not by:
            raise ValueError("somebody has to do it")
        self._keyring.nodes.require_lead()
        with self._translated(), self._database.transaction(alone="grants"):
            self.all()
            values = act | {
                "number": self._number + 1,
                "before": self._before,
                "by": by,
                "at": now.astimezone(UTC).isoformat(),
            }
            body = json.dumps(values, sort_keys=True).encode("ascii")
            signature = self._keyring.signer().sign(HYBRID, "grant", body)
            self._database.execute(
                "INSERT INTO entry VALUES (?, ?, ?)",
                (values["number"], body, signature),
            )
        self.all()
        self._keyring.keep_grant_entries(self._number, self._before)
        return int(values["number"])  # another process may have added one since

    def _take(self, number: int, body: bytes, signature: bytes) -> None:
        """Believe one entry, after those before it."""
        signed_by = self._signed_with(body, signature)
        # A key that was given up signs no entry behind the first of its successor.
        is_signed = signed_by >= max(self._signed_by, 1)
        values = json.loads(body) if is_signed else {}
        if (values.get("number"), values.get("before")) != (number, self._before) or (
            number != self._number + 1
        ):
            raise LedgerError(
                f"entry {number} of {self._path} is not what this site signed",
                hint="Until that is cleared up nobody is granted anything. Take the "
                "file from your backup, and tell whoever looks after security.",
            )
        by = str(values["by"])
        match values["did"]:
            case "propose":
                terms = _terms(values["terms"])
                self._read.append(
                    Grant(
                        id=number,
                        terms=terms,
                        proposed_by=by,
                        approved_by=(),
                        approvals_needed=self._approvals,
                    )
                )
            case "rule":
                self._rule(int(values["approvals"]), by, number)
            case did:
                self._read = [
                    _changed(grant, did, by) if grant.id == values["grant"] else grant
                    for grant in self._read
                ]
        self._number, self._signed_by = number, signed_by
        self._before = hashlib.sha256(body).hexdigest()
        self._digests.append(self._before)

    def _rule(self, approvals: int, by: str, number: int) -> None:
        """Let new grants take that many people; fewer, once as many as before say so.

        What a site begins with is its own choice, before there is any grant.
        """
        agreeing = self._agreeing.setdefault(approvals, set())
        agreeing.add(by)
        if (
            approvals >= self._approvals
            or number == 1
            or len(agreeing) >= self._approvals
        ):
            self._approvals = approvals
            self._agreeing.clear()

    def _signed_with(self, body: bytes, signature: bytes) -> int:
        """Return which version of this site's signing key signed; 0 if none did."""
        for version, verifier in self._keyring.verifiers().items():
            if verifier.has_signed(HYBRID, "grant", signature, body):
                return version
        return 0

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (*FAILURES, ValueError, KeyError, TypeError) as error:
            raise LedgerError(
                f"the grants cannot be used: {error}",
                hint="Check that the state folder is writable and its disk not full.",
            ) from error


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate's public key, in hexadecimal.

    It stays the same when a certificate is renewed for the same key (RFC 7469, 2.4).
    """
    key = certificate.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(key).hexdigest()


def _terms(values: dict[str, Any]) -> Terms:
    lists = {name: tuple(values[name]) for name in _LISTS}
    dates = {name: datetime.fromisoformat(values[name]) for name in _DATES}
    mode = {"mode": GrantMode(values["mode"])}
    return Terms(**values | lists | dates | mode)


def _changed(grant: Grant, did: str, by: str) -> Grant:
    if did == "approve":
        return replace(grant, approved_by=(*grant.approved_by, by))
    return replace(grant, revoked_by=by)

"""The second copy of every sealed record, for archives that lose private elements.

A record is found by the digest of the marked pixels, which survives renaming, lossless
recompression and a lost private block. The ledger holds sealed records only: whoever
steals it has what every receiver of a marked object has.

It also numbers the records of a site, and knows of which study each is and which were
shredded. Rows are added and never changed; shredding takes away, and so does marking
again what was never sent. This is the only module that knows
the ledger's SQL.
"""

from __future__ import annotations

import hmac
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from dicom_node.errors import LedgerError, LostRecordError, ShreddedError
from dicom_node.tables import FAILURES, FileDatabase, Tables, opened
from miadmark_core.errors import DamagedSealError, Layer
from miadmark_core.sealing.record import SealedRecord, parse
from miadmark_core.sealing.stanza import StanzaType

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime
    from pathlib import Path

    from dicom_node.queueing import Queueing
    from miadmark_core.sealing.record import Header

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS record (
    id                INTEGER PRIMARY KEY,
    record_id         BLOB    NOT NULL UNIQUE,
    marked_digest     BLOB    NOT NULL,
    epoch             INTEGER NOT NULL,  -- of its stanza; 0 where it has none
    study             TEXT    NOT NULL,  -- Study Instance UID; '' where unknown
    header            BLOB    NOT NULL,
    payload           BLOB    NOT NULL,
    created           TEXT    NOT NULL
);
CREATE INDEX IF NOT EXISTS record_by_digest ON record (marked_digest, id);
CREATE INDEX IF NOT EXISTS record_by_epoch ON record (epoch, id);
-- The object key once more, under the key of a later epoch.
CREATE TABLE IF NOT EXISTS rewrapped (
    record_id         BLOB    PRIMARY KEY,
    epoch             INTEGER NOT NULL,
    body              BLOB    NOT NULL
);
CREATE TABLE IF NOT EXISTS shredded (
    record_id         BLOB    PRIMARY KEY,
    by                TEXT    NOT NULL,
    at                TEXT    NOT NULL
);
-- What originals were marked with; see dicom_node.found_marks.
CREATE TABLE IF NOT EXISTS marked (
    source            BLOB    PRIMARY KEY,  -- keyed hash of the original
    marked_digest     BLOB    NOT NULL,
    sealed            BLOB                  -- null once it was shredded
);
CREATE INDEX IF NOT EXISTS marked_by_digest ON marked (marked_digest);
CREATE TABLE IF NOT EXISTS numbered (last INTEGER NOT NULL);
INSERT INTO numbered SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM numbered);
"""


class Rewrapped(NamedTuple):
    """An object key under the key of a later epoch."""

    record_id: bytes
    epoch: int
    body: bytes


class Ledger(Tables):
    """Tables of sealed records; one connection, which several threads may use."""

    def __init__(self, place: Path | Queueing) -> None:
        """Open the ledger, or make it.

        Args:
            place: Its file, or a database on a server.

        Raises:
            LedgerError: It cannot be opened or is no ledger.
        """
        with _translated():
            self._database = opened(place, SCHEMA)

    def number(self) -> int:
        """Return the number of the next record; no two records get the same."""
        with _translated():
            (number,) = self._database.execute(
                "UPDATE numbered SET last = last + 1 RETURNING last"
            ).fetchone()
        return int(number)

    def last_number(self) -> int:
        """Return the number that was given out last; 0 at first."""
        with _translated():
            row = self._database.execute("SELECT last FROM numbered").fetchone()
        return int(row[0])

    def add(
        self,
        marked_digest: bytes,
        record: SealedRecord,
        now: datetime,
        study_instance_uid: str = "",
        *,
        is_closed: bool = False,
    ) -> None:
        """Keep ``record``; durable when this returns, and once however often it is added.

        Args:
            marked_digest: Of the marked pixels: what it is found by.
            record: What to keep.
            now: Aware.
            study_instance_uid: Of the study that was marked: grants may be for some only.
            is_closed: No key of this site opens it, so no epoch's end waits for it.
        """
        header = parse(record.header)
        with _translated(), self._database.transaction():
            self._database.execute(
                "INSERT INTO record"
                " (record_id, marked_digest, epoch, study, header, payload, created)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (record_id) DO NOTHING",
                (
                    header.record_id,
                    marked_digest,
                    0 if is_closed else _epoch(header),
                    study_instance_uid,
                    *record,
                    now.isoformat(),
                ),
            )
            # A ledger made again from objects goes on where they left off.
            self._database.execute(
                "UPDATE numbered SET last = ? WHERE last < ?",
                (header.sequence, header.sequence),
            )

    def forget(self, record_id: bytes) -> None:
        """Take out a record that was never sent."""
        with _translated():
            self._database.execute(
                "DELETE FROM record WHERE record_id = ?", (record_id,)
            )

    def find(self, marked_digest: bytes) -> SealedRecord | None:
        """Return the record of the pixels with that digest, if there is one.

        If they were marked more than once (the same original, sent again), the newest.
        """
        with _translated():
            row = self._database.execute(
                "SELECT header, payload FROM record"
                " WHERE marked_digest = ? ORDER BY id DESC LIMIT 1",
                (marked_digest,),
            ).fetchone()
        return None if row is None else SealedRecord(*row)

    def header_of(self, record_id: bytes) -> bytes | None:
        """Return the header of a record of this site, if the ledger knows it."""
        with _translated():
            row = self._database.execute(
                "SELECT header FROM record WHERE record_id = ?", (record_id,)
            ).fetchone()
        return None if row is None else bytes(row[0])

    def require_standing(self, header: Header, encoded: bytes) -> None:
        """Return if this very record was made here, and its key not destroyed.

        Raises:
            ShreddedError: Its key was destroyed.
            LostRecordError: The ledger does not know it.
            DamagedSealError: It knows another of that number.
        """
        with _translated():
            shredded = self._database.execute(
                "SELECT at FROM shredded WHERE record_id = ?", (header.record_id,)
            ).fetchone()
            row = self._database.execute(
                "SELECT header FROM record WHERE record_id = ?", (header.record_id,)
            ).fetchone()
        if shredded is not None:
            raise ShreddedError(
                f"the key of this record was destroyed at {shredded[0]}"
            )
        if row is None:
            raise LostRecordError(
                "the record names this site, and its ledger does not know it",
                hint="Where the ledger was lost: miadmark ledger rebuild PATH... makes "
                "it again from the objects. Otherwise tell whoever looks after "
                "security.",
            )
        if not hmac.compare_digest(row[0], encoded):
            raise DamagedSealError(
                "the record is not the one that the ledger holds under its number",
                hint="Tell whoever looks after security.",
                layer=Layer.LEDGER,
            )

    def study_of(self, record_id: bytes) -> str:
        """Return the Study Instance UID that was marked; empty where it is not known."""
        with _translated():
            row = self._database.execute(
                "SELECT study FROM record WHERE record_id = ?", (record_id,)
            ).fetchone()
        return "" if row is None else str(row[0])

    def rewrapped(self, record_id: bytes) -> Rewrapped | None:
        """Return the object key of a record under a later epoch's key, if it is there."""
        with _translated():
            row = self._database.execute(
                "SELECT record_id, epoch, body FROM rewrapped WHERE record_id = ?",
                (record_id,),
            ).fetchone()
        return None if row is None else Rewrapped(*row)

    def headers_before(
        self, epoch: int, after: int, count: int
    ) -> list[tuple[int, bytes]]:
        """Return records whose newest wrapping is older than ``epoch``.

        Args:
            epoch: The first that counts.
            after: Row to go on behind; 0 at first.
            count: How many at most.

        Returns:
            Row and header of each, in order.
        """
        with _translated():
            return self._database.execute(
                "SELECT r.id, r.header FROM record AS r"
                " LEFT JOIN rewrapped AS w USING (record_id)"
                " WHERE coalesce(w.epoch, r.epoch) > 0"
                " AND coalesce(w.epoch, r.epoch) < ? AND r.id > ?"
                " ORDER BY r.id LIMIT ?",
                (epoch, after, count),
            ).fetchall()

    def rewrap(self, wrapped: Iterable[Rewrapped]) -> None:
        """Keep object keys under a later epoch's key, in place of an earlier one."""
        with _translated(), self._database.transaction():
            self._database.executemany(
                "INSERT INTO rewrapped VALUES (?, ?, ?) ON CONFLICT (record_id)"
                " DO UPDATE SET epoch = excluded.epoch, body = excluded.body",
                wrapped,
            )

    def shred(self, record_id: bytes, by: str, now: datetime) -> None:
        """Forget a record, and remember that it was forgotten."""
        with _translated():
            with self._database.transaction():
                self._database.execute(
                    "INSERT INTO shredded VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                    (record_id, by, now.isoformat()),
                )
                self._database.execute(
                    "UPDATE marked SET sealed = NULL WHERE marked_digest IN"
                    " (SELECT marked_digest FROM record WHERE record_id = ?)",
                    (record_id,),
                )
                for table in ("rewrapped", "record"):
                    self._database.execute(
                        f"DELETE FROM {table} WHERE record_id = ?",  # noqa: S608
                        (record_id,),
                    )
            if isinstance(self._database, FileDatabase):
                # The write-ahead log holds copies of pages until then. A server's log,
                # pages and copies are beyond what can be done from here.
                self._database.execute("PRAGMA wal_checkpoint (TRUNCATE)")

    def count(self) -> int:
        """Return how many records there are."""
        with _translated():
            row = self._database.execute("SELECT count(*) FROM record").fetchone()
        return int(row[0])


def _epoch(header: Header) -> int:
    epochs = [s.version for s in header.stanzas if s.type is StanzaType.EPOCH]
    return epochs[0] if epochs else 0


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except FAILURES as error:
        raise LedgerError(
            f"the ledger cannot be used: {error}",
            hint=getattr(error, "hint", "")
            or "Check that the state folder is writable and its disk not full.",
        ) from error

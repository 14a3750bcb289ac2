"""The second copy of every sealed record, for archives that lose private elements.

A record is found by the digest of the marked pixels, which survives renaming, lossless
recompression and a lost private block. The ledger holds sealed records only: whoever
steals it has what every receiver of a marked object has.

Rows are added and never changed. This is the only module that knows the ledger's SQL.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Self

from dicom_node.errors import LedgerError
from miadmark_core.sealing.record import SealedRecord

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path
    from types import TracebackType

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS record (
    id                INTEGER PRIMARY KEY,
    marked_digest     BLOB    NOT NULL,
    header            BLOB    NOT NULL,
    payload           BLOB    NOT NULL,
    created           TEXT    NOT NULL
);
CREATE INDEX IF NOT EXISTS record_by_digest ON record (marked_digest, id);
"""


class Ledger:
    """A SQLite file of sealed records; one connection, one thread."""

    def __init__(self, path: Path) -> None:
        """Open the ledger, or make it.

        Raises:
            LedgerError: The file cannot be opened or is no ledger.
        """
        with _translated():
            self._database = sqlite3.connect(path, timeout=30, isolation_level=None)
            self._database.execute("PRAGMA journal_mode = WAL")
            # An acknowledged record survives a power cut; NORMAL may lose it.
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(SCHEMA)

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

    def add(self, marked_digest: bytes, record: SealedRecord, now: datetime) -> None:
        """Keep ``record`` under the digest of the marked pixels.

        It is durable when this returns. ``now`` is aware.
        """
        with _translated():
            self._database.execute(
                "INSERT INTO record (marked_digest, header, payload, created)"
                " VALUES (?, ?, ?, ?)",
                (marked_digest, *record, now.isoformat()),
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


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise LedgerError(
            f"the ledger cannot be used: {error}",
            hint="Check that the state folder is writable and its disk not full.",
        ) from error

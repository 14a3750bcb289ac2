"""Bring what one node's ledger remembers into another's: records, marks and new names.

What both know stays as it is. Where two nodes gave one original two marks, that is told,
and the mark that is known here stands.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final, NamedTuple

from dicom_node.durable import database
from dicom_node.errors import LedgerError
from dicom_node.ledger import SCHEMA
from dicom_node.renamings import SCHEMA as RENAMED

if TYPE_CHECKING:
    from pathlib import Path

_COUNTED: Final = ("record", "marked", "renamed")
_MERGED: Final = """
INSERT INTO shredded SELECT * FROM other.shredded WHERE true ON CONFLICT DO NOTHING;
INSERT INTO record (record_id, marked_digest, epoch, study, header, payload, created)
    SELECT record_id, marked_digest, epoch, study, header, payload, created
      FROM other.record WHERE true ORDER BY id ON CONFLICT (record_id) DO NOTHING;
INSERT INTO rewrapped SELECT * FROM other.rewrapped WHERE true
    ON CONFLICT (record_id) DO UPDATE SET epoch = excluded.epoch, body = excluded.body
       WHERE excluded.epoch > epoch;
INSERT INTO marked SELECT * FROM other.marked WHERE true ON CONFLICT DO NOTHING;
UPDATE marked SET sealed = NULL
 WHERE source IN (SELECT source FROM other.marked WHERE sealed IS NULL);
INSERT INTO renamed SELECT * FROM other.renamed WHERE true ON CONFLICT DO NOTHING;
DELETE FROM record WHERE record_id IN (SELECT record_id FROM shredded);
DELETE FROM rewrapped WHERE record_id IN (SELECT record_id FROM shredded);
UPDATE numbered SET last = max(last, (SELECT last FROM other.numbered));
"""
_DIFFERING: Final = (
    "SELECT count(*) FROM marked JOIN other.marked AS theirs USING (source)"
    " WHERE marked.marked_digest <> theirs.marked_digest"
)


class Merged(NamedTuple):
    """What was not known here."""

    records: int
    marks: int
    names: int
    differing: int
    """Originals that went out with two marks."""


def merge(path: Path, other: Path) -> Merged:
    """Add what ``other`` remembers; durable when this returns, and once however often.

    Args:
        path: The ledger's file of this node; made if it is not there.
        other: A copy of another node's, of the same site.

    Raises:
        LedgerError: One of them cannot be read or written.
    """
    try:
        for file in (path, other):
            database(file, SCHEMA + RENAMED).close()
        with closing(database(path, "")) as ledger:
            ledger.execute("PRAGMA secure_delete = ON")
            ledger.execute("ATTACH DATABASE ? AS other", (str(other),))
            before = _counts(ledger)
            ledger.executescript(f"BEGIN IMMEDIATE;{_MERGED}COMMIT;")
            added = [n - b for n, b in zip(_counts(ledger), before, strict=True)]
            ((differing,),) = ledger.execute(_DIFFERING)
    except sqlite3.Error as error:
        raise LedgerError(
            f"{other} cannot be brought into {path}: {error}",
            hint="Check that the state folder is writable and its disk not full.",
        ) from error
    records, marks, names = added
    return Merged(records, marks, names, differing)


def copy(path: Path, target: Path) -> None:
    """Copy a ledger as it is at one moment, into one file.

    Raises:
        LedgerError: It cannot be read or written.
    """
    try:
        database(path, SCHEMA + RENAMED).close()
        with (
            closing(sqlite3.connect(path, timeout=30)) as ledger,
            closing(sqlite3.connect(target)) as made,
        ):
            ledger.backup(made)
            made.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise LedgerError(f"{path} cannot be copied: {error}") from error


def _counts(ledger: sqlite3.Connection) -> list[int]:
    return [
        int(ledger.execute(f"SELECT count(*) FROM main.{table}").fetchone()[0])  # noqa: S608
        for table in _COUNTED
    ]

"""What this site has renamed: from a keyed hash of the old UID to the new one.

It is asked for what no rule gives: of other studies, and of reports, which are renamed
only where they refer to something. The old names are not in it; who has the file and not
the site's key can ask it nothing. It lies in the ledger's file, in a table of its own,
and losing it loses no original: references to what went out before stay as they are.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from dicom_node.errors import LedgerError
from dicom_node.tables import FAILURES, Tables, opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dicom_node.queueing import Queueing
    from dicom_node.uids import Keyed

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS renamed (
    source            BLOB    PRIMARY KEY,  -- keyed hash of the original's UID
    derived           TEXT    NOT NULL      -- SOP Instance UID that it went out under
) WITHOUT ROWID;
"""


class Renamings(Tables):
    """A table of what was renamed; one connection, one thread."""

    def __init__(self, place: Path | Queueing, keyed: Keyed) -> None:
        """Open the table, or make it.

        Args:
            place: The ledger's.
            keyed: Of this site.

        Raises:
            LedgerError: The file cannot be opened.
        """
        self._keyed = keyed
        with _translated():
            self._database = opened(place, SCHEMA)

    def add(self, source: str, derived: str) -> None:
        """Remember that ``source`` went out as ``derived``, from now on.

        Raises:
            LedgerError: It cannot be written down.
        """
        with _translated():
            self._database.execute(
                "INSERT INTO renamed VALUES (?, ?) ON CONFLICT (source)"
                " DO UPDATE SET derived = excluded.derived"
                " WHERE renamed.derived <> excluded.derived",
                (self._hash(source), derived),
            )

    def find(self, source: str) -> str | None:
        """Return the UID that ``source`` went out under last; None if it never did.

        Raises:
            LedgerError: The file cannot be read.
        """
        with _translated():
            row = self._database.execute(
                "SELECT derived FROM renamed WHERE source = ?", (self._hash(source),)
            ).fetchone()
        return None if row is None else str(row[0])

    def _hash(self, source: str) -> bytes:
        return self._keyed(b"renamed\0" + source.encode("utf-8"))


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except FAILURES as error:
        raise LedgerError(
            f"what was renamed cannot be looked up or written down: {error}",
            hint="Check that the state folder is writable and its disk not full.",
        ) from error

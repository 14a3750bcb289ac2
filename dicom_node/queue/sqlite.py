"""A queue in a SQLite file: what is added survives a power cut.

Several processes may open the same file. Every statement stands in a file ``.sql``.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Final

from dicom_node.durable import database
from dicom_node.queue import recording
from dicom_node.queue.job import Lane
from dicom_node.queue.sql_queue import SqlQueue
from dicom_node.queue.sqlite_purging import SqlitePurging
from dicom_node.queue.statements import SQL, keep_trigger
from dicom_node.queue.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

_TALLIES: Final = (
    "minutes",
    "owed",
    "counted",
    "added",
    "moved",
    "removed",
    "forgotten",
)
"""What counts are kept by, after ``totals``, which they are kept in."""

_LATER_COLUMNS: Final[Mapping[tuple[str, str], str]] = {
    ("instance", "study_instance_uid"): "TEXT NOT NULL DEFAULT ''",
    ("instance", "sop_class_uid"): "TEXT NOT NULL DEFAULT ''",
    ("instance", "patient"): "TEXT NOT NULL DEFAULT ''",
    ("instance", "calling_ae_title"): "TEXT NOT NULL DEFAULT ''",
    ("job", "claim"): "INTEGER NOT NULL DEFAULT 0",
    ("job", "crashes"): "INTEGER NOT NULL DEFAULT 0",
    ("job", "faults"): "INTEGER NOT NULL DEFAULT 0",
    ("job", "settled"): "TEXT NOT NULL DEFAULT ''",
    ("job", "lane"): "TEXT NOT NULL DEFAULT 'filter'",
    ("job", "study_instance_uid"): "TEXT NOT NULL DEFAULT ''",
    ("job", "destination"): "TEXT NOT NULL DEFAULT ''",
    ("job", "priority"): "INTEGER NOT NULL DEFAULT 0",
    ("job", "receiver"): "TEXT NOT NULL DEFAULT ''",
    ("job", "ordered"): "INTEGER NOT NULL DEFAULT 0",
    ("glass", "receiver"): "TEXT NOT NULL DEFAULT ''",
}
"""Table and name of columns which queues of earlier versions do not have."""


class SqliteQueue(SqlitePurging, SqlQueue):
    """See :class:`dicom_node.queue.protocol.Queue`.

    One connection; it may cross threads if its user lets only one at a time in.
    """

    def __init__(
        self, path: Path, *, passed: Collection[str] = (), lane: Lane | None = None
    ) -> None:
        """Open the queue, or make it.

        Args:
            path: Its file.
            passed: Routes whose jobs are in the lane ``pass``.
            lane: Whose jobs are claimed, and put back; None for all.

        Raises:
            SpoolError: The file cannot be opened or is no queue.
        """
        self._passed = frozenset(passed)
        self._lanes = tuple(Lane) if lane is None else (lane,)
        schema = resources.files("dicom_node.queue").joinpath("schema.sql")
        self._turn = Turn(path.with_name(f"{path.name}.turn"))
        with self._translated():
            self._database = database(
                path,
                schema.read_text("utf-8"),
                is_of_one_thread=False,
                gives_back=True,
            )
        if self._missing():
            with self._transaction():
                for table, name in self._missing():
                    kind = _LATER_COLUMNS[table, name]
                    self._database.execute(
                        f"ALTER TABLE {table} ADD COLUMN {name} {kind}"
                    )
        with self._translated():
            for index in ("earlier", "due", "studies", "working", "purged"):
                self._database.execute(SQL[f"index_{index}"])
            for trigger in ("received", "sent"):
                keep_trigger(self._database, SQL[f"trigger_{trigger}"])
        self._begin_tallies()
        with self._translated():
            recording.prepare(self._database)

    def _missing(self) -> list[tuple[str, str]]:
        """Return the columns that the file's version of the queue did not have."""
        found = set()
        with self._translated():
            for table in ("instance", "job", "glass"):
                columns = self._database.execute(f"PRAGMA table_info ({table})")
                found |= {(table, column[1]) for column in columns.fetchall()}
        return sorted(_LATER_COLUMNS.keys() - found)

    def _begin_tallies(self) -> None:
        """Keep counts from now on, of what was there before too."""
        with self._translated():
            if self._all("is_tallied"):
                return
        with self._transaction():
            if not self._all("is_tallied"):  # another process may have been faster
                for name in ("totals", *_TALLIES):
                    self._all(f"tally_{name}")

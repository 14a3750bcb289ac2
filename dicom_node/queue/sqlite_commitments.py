"""Commitments in the file of a SQLite queue; several processes may open the same file."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from dicom_node.durable import database
from dicom_node.queue.sql_commitments import SqlCommitments
from dicom_node.queue.turn import Turn

if TYPE_CHECKING:
    from pathlib import Path


class SqliteCommitments(SqlCommitments):
    """See :class:`dicom_node.queue.commitments.Commitments`.

    One connection, which several threads may use.
    """

    def __init__(self, path: Path) -> None:
        """Open them, or make them.

        Args:
            path: The file of a queue that is there.

        Raises:
            SpoolError: The file cannot be opened or is no queue.
        """
        schema = resources.files("dicom_node.queue").joinpath("commitments_schema.sql")
        self._turn = Turn(path.with_name(f"{path.name}.turn"))
        with self._translated():
            self._database = database(
                path, schema.read_text("utf-8"), is_of_one_thread=False
            )
            is_ready = self._all("has_number") and not self._all("carried_out")
        if not is_ready:
            with self._transaction():
                self._bring_up()

    def _bring_up(self) -> None:
        """Put in order what an earlier version has left."""
        if not self._all("has_number"):
            self._all("number_column")
        for (job_id,) in self._all("carried_out"):
            self._withdraw(job_id)

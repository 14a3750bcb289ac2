"""Commitments in the database of a queue: they change in one transaction with jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dicom_node.queue.postgres_statements import Served
from dicom_node.queue.sql_commitments import SqlCommitments

if TYPE_CHECKING:
    from datetime import datetime

    from dicom_node.queue.commitments import Asked
    from dicom_node.queueing import Queueing


class PostgresCommitments(Served, SqlCommitments):
    """See :class:`dicom_node.queue.commitments.Commitments`.

    One connection; it may cross threads if its user lets only one at a time in.
    """

    def __init__(self, place: Queueing, node: str = "") -> None:
        """Open them, or make them.

        Args:
            place: Where the database of the queue is.
            node: Whose they are.

        Raises:
            ServerError: The server cannot be reached.
            ConfigError: A later version has used the database.
        """
        self._begin(place, node)

    def told(self, asked: Asked) -> None:
        """Forget what a peer asked: it was told."""
        super().told(asked)
        self._all("tell_over", id=str(asked.id))

    def tell_later(self, asked: Asked, not_before: datetime, reason: str) -> None:
        """Try again to tell a peer; another node may."""
        super().tell_later(asked, not_before, reason)
        self._all("tell_over", id=str(asked.id))

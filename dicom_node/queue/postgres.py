"""A queue in a PostgreSQL database, which several nodes may work off.

Every statement stands in a file ``.sql``. A node puts back what it has claimed itself;
what a node that is gone has claimed is put back once its lease is over, or when others
have seen that it is gone.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from dicom_node.queue.job import Lane
from dicom_node.queue.postgres_statements import Served
from dicom_node.queue.sql_queue import SqlQueue
from dicom_node.queue.statements import as_text

if TYPE_CHECKING:
    from collections.abc import Collection

    from dicom_node.queueing import Queueing

_MINUTES_KEPT: Final = timedelta(hours=2)
"""How long it is known what came and went in each minute."""


class PostgresQueue(Served, SqlQueue):
    """See :class:`dicom_node.queue.protocol.Queue`.

    One connection; it may cross threads if its user lets only one at a time in.
    """

    def __init__(
        self,
        place: Queueing,
        *,
        node: str = "",
        passed: Collection[str] = (),
        lane: Lane | None = None,
    ) -> None:
        """Open the queue, or make it.

        Args:
            place: Where its database is.
            node: Whose claims these are.
            passed: Routes whose jobs are in the lane ``pass``.
            lane: Whose jobs are claimed, and put back; None for all.

        Raises:
            ServerError: The server cannot be reached.
            ConfigError: A later version has used the database.
        """
        self._passed = frozenset(passed)
        self._lanes = tuple(Lane) if lane is None else (lane,)
        self._is_shared = place.shared is not None
        self._begin(place, node)

    def purge(self, before: datetime, count: int = 500) -> int:
        """Forget instances of long ago; see the protocol. Counts are put together too."""
        wanted = {"before": as_text(before), "count": count}
        if self._all("has_parts"):
            self._fold()
        if not self._all("purgeable", **wanted):
            return 0
        with self._transaction(lasts=False):
            numbers = [number for (number,) in self._all("purgeable", **wanted)]
            ids = json.dumps(numbers)
            self._all("purge_jobs", ids=ids)
            self._all("purge_instances", ids=ids)
        return len(numbers)

    def _fold(self) -> None:
        """Put counts together: each change of one is a row until then."""
        since = as_text(datetime.now(UTC) - _MINUTES_KEPT)
        with self._transaction(lasts=False):
            self._alone_with("counts")
            for name in ("totals", "events", "pace"):
                self._done(f"fold_{name}")
            self._done("fold_minutes", since=since[: len("2026-01-01T12:00")])

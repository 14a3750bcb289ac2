"""Forget what was settled long ago, in a SQLite file that gives its room back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dicom_node.queue.statements import SQL, Statements, as_text

if TYPE_CHECKING:
    from datetime import datetime


class SqlitePurging(Statements):
    """See :class:`dicom_node.queue.purging.Purging`."""

    def purge(self, before: datetime, count: int = 500) -> int:
        """Forget instances of long ago; see the protocol."""
        wanted = {"before": as_text(before), "count": count}
        with self._translated():
            # Looked for outside a transaction, which would keep others out.
            if not self._all("purgeable", **wanted):
                return 0
        # What a power cut brings back is purged again.
        with self._transaction(lasts=False):
            numbers = [number for (number,) in self._all("purgeable", **wanted)]
            ids = json.dumps(numbers)
            self._all("purge_jobs", ids=ids)
            self._all("purge_instances", ids=ids)
        with self._translated():
            # To its end, which a single step of a statement without rows is not.
            self._database.executescript(SQL["give_back"])
        return len(numbers)

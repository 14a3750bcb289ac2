"""Counts of a queue in a database: kept by triggers, read in no time."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from dicom_node.queue.statements import Statements, as_text
from dicom_node.queue.tally import LATELY, Tally

_MINUTE: Final = len("2026-01-01T12:00")


class SqlTallies(Statements):
    """See :class:`dicom_node.queue.tally.Tallies`."""

    def tallies(self, now: datetime) -> list[Tally]:
        """Return one for each route and destination; see the protocol."""
        until = as_text(now)[:_MINUTE]
        since = as_text(now - LATELY)[:_MINUTE]
        counts: dict[tuple[str, str], dict[str, int]] = {}
        found = []
        with self._reading():
            for route, destination, what, count in self._all("totals"):
                counts.setdefault((route, destination), {})[what] = count
            for (route, destination), each in counts.items():
                where = {"route": route, "destination": destination}
                lately = dict(self._all("lately", since=since, until=until, **where))
                oldest = [
                    datetime.fromisoformat(t) for (t,) in self._all("oldest", **where)
                ]
                found.append(
                    Tally(
                        route=route,
                        destination=destination,
                        **each,
                        oldest=oldest[0] if oldest else None,
                        received_lately=lately.get("received", 0),
                        sent_lately=lately.get("sent", 0),
                    )
                )
        return [one for one in found if one.received]

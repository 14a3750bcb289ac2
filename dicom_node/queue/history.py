"""What people are shown of a queue: where jobs stand, what happened to each, how fast.

It is read over a connection of its own that can change nothing, and does not grow slower
with the number of instances: totals are kept by triggers (``tallies.sql``,
``history.sql``), and what is listed is listed to a limit. It knows UIDs, AE titles,
routes and reasons; of patients it knows nothing, and so cannot be asked about them.

Times of steps are the database's own: when they were written down.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from dicom_node.errors import SpoolError
from dicom_node.queue.job import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SLOT: Final = timedelta(minutes=10)
"""For how long each number of :meth:`History.pace` is."""
_SETTLED: Final = frozenset({"sent", "dropped"})
_SLOT_LENGTH: Final = len("2026-01-01T12:3")

_SEEN: Final = """
SELECT job.id, job.instance_id, sop_instance_uid, instance.study_instance_uid,
       calling_ae_title, received, route, destination, state, attempts, not_before,
       reason, file, filtered, purpose
  FROM job JOIN instance ON instance.id = job.instance_id
"""
_PLACE: Final = "SELECT instance_id, id FROM job WHERE id = :before"


class Stand(NamedTuple):
    """How many jobs stand somewhere."""

    route: str
    destination: str
    state: JobState
    jobs: int


class Event(NamedTuple):
    """How often something has happened."""

    what: str
    route: str
    destination: str
    times: int


class Seen(NamedTuple):
    """A job as it is listed."""

    id: int
    instance_id: int
    sop_instance_uid: str
    study_instance_uid: str
    calling_ae_title: str
    received: datetime
    route: str
    destination: str
    state: JobState
    attempts: int
    not_before: datetime
    reason: str
    file: str | None
    """As it came; None once it is deleted."""
    filtered: str | None
    """As it is, or was, to be sent; likewise."""
    purpose: str | None


class Step(NamedTuple):
    """Something that happened."""

    at: datetime
    job_id: int | None
    what: str
    about: str


class Search(NamedTuple):
    """What jobs are looked for by; what is empty does not matter."""

    uid: str = ""
    """Of an instance or a study: whole, since a part of one names nobody."""
    calling_ae_title: str = ""
    destinations: tuple[str, ...] = ()
    route: str = ""
    state: str = ""


class History:
    """Reads a queue's file; one connection, one thread."""

    _unused: ClassVar = "+"
    """Before a column, keeps the database from using an index (sqlite.org, "Query
    Planning"): it does not know that few jobs are held, and many sent."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Args:
            path: Of a queue that is there.

        Raises:
            SpoolError: It cannot be opened.
        """
        with _translated():
            self._database = sqlite3.connect(
                path, timeout=10, isolation_level=None, check_same_thread=False
            )
            self._database.execute("PRAGMA query_only = ON")

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def stands(self) -> list[Stand]:
        """Return how many jobs of each route and destination stand where."""
        rows = self._rows(
            "SELECT route, destination, what, count FROM total"
            " WHERE count > 0 AND what <> 'received'"
        )
        return [Stand(r, d, JobState(state), jobs) for r, d, state, jobs in rows]

    def events(self) -> list[Event]:
        """Return how often each thing has happened since the queue was made."""
        rows = self._rows("SELECT what, route, destination, times FROM event")
        return [Event(*row) for row in rows]

    def oldest(self) -> dict[tuple[str, str], datetime]:
        """Return when the oldest instance that is on its way came in.

        By route and destination; each is looked up by itself, in an index.
        """
        rows = self._rows(
            "SELECT pair.route, pair.destination, instance.received"
            "  FROM (SELECT DISTINCT route, destination FROM total"
            "         WHERE what IN ('waiting', 'working') AND count > 0) AS pair"
            "  JOIN instance ON instance.id ="
            "       (SELECT instance_id FROM job"
            "         WHERE job.state IN ('waiting', 'working')"
            "           AND job.route = pair.route"
            "           AND job.destination = pair.destination"
            "         ORDER BY job.id LIMIT 1)"
        )
        return {(route, to): _moment(received) for route, to, received in rows}

    def unpromised(self) -> dict[tuple[str, str], datetime]:
        """Return since when somebody has what he has not promised to keep.

        By route and destination.
        """
        rows = self._rows(
            "SELECT route, destination, min(settled) FROM job"
            " WHERE state = 'uncommitted' GROUP BY route, destination"
        )
        return {(route, to): _moment(settled) for route, to, settled in rows}

    def pace(self, since: datetime) -> dict[str, dict[str, int]]:
        """Return how many were received, and sent, in each :data:`SLOT` since then.

        By what, and by the slot's name (:func:`slot_of`); empty slots are left out.
        """
        found: dict[str, dict[str, int]] = {"received": {}, "sent": {}}
        for slot, what, times in self._rows(
            "SELECT slot, what, times FROM pace WHERE slot >= :slot",
            slot=slot_of(since),
        ):
            found.setdefault(what, {})[slot] = times
        return found

    def found(self, search: Search, most: int, before: int = 0) -> list[Seen]:
        """Return jobs that fit, the newest first.

        Args:
            search: What for.
            most: How many at most.
            before: The number of a job; only older ones are wanted. 0 for all.
        """
        # Whoever sent, his instances are gone through; otherwise jobs are.
        order, older = "job.id DESC", "job.id < :before"
        if search.calling_ae_title:
            order = "instance.id DESC, job.id DESC"
            older = f"(instance.id, job.id) < ({_PLACE})"
        clauses = ["1 = 1"]
        values: dict[str, object] = {"most": most, "before": before}
        if search.uid:
            clauses.append(
                "job.instance_id IN"
                " (SELECT id FROM instance WHERE sop_instance_uid = :uid"
                " UNION SELECT id FROM instance WHERE study_instance_uid = :uid)"
            )
            values["uid"] = search.uid
        if search.calling_ae_title:
            clauses.append("instance.calling_ae_title = :calling")
            values["calling"] = search.calling_ae_title
        for number, name in enumerate(search.destinations):
            values[f"to_{number}"] = name
        if search.destinations:
            names = ", ".join(f":to_{n}" for n in range(len(search.destinations)))
            clauses.append(f"{self._by(search, 'destination')} IN ({names})")
        for column in ("route", "state"):
            if wanted := getattr(search, column):
                clauses.append(f"{self._by(search, column)} = :{column}")
                values[column] = wanted
        if before:
            clauses.append(older)
        where = " AND ".join(clauses)
        return self._seen(f"{where} ORDER BY {order} LIMIT :most", values)

    def job(self, job_id: int) -> Seen | None:
        """Return a job; None if there is none of that number."""
        return next(iter(self._seen("job.id = :id", {"id": job_id})), None)

    def study(self, study_instance_uid: str, most: int) -> list[Seen]:
        """Return jobs of a study, in the order in which they came in."""
        return self._seen(
            "job.instance_id IN (SELECT id FROM instance WHERE study_instance_uid = :uid)"
            " ORDER BY job.id LIMIT :most",
            {"uid": study_instance_uid, "most": most},
        )

    def steps(self, instance_id: int) -> list[Step]:
        """Return what happened to an instance and its jobs, in order."""
        rows = self._rows(
            "SELECT at, job_id, what, about FROM step WHERE instance_id = :id"
            " ORDER BY number",
            id=instance_id,
        )
        return [Step(_moment(at), job, what, about) for at, job, what, about in rows]

    def _seen(self, where: str, values: Mapping[str, object]) -> list[Seen]:
        # What is put together are clauses of this module; values are values.
        rows = self._rows(f"{_SEEN} WHERE {where}", **values)
        return [
            Seen(*row)._replace(
                received=_moment(row[5]),
                state=JobState(row[8]),
                not_before=_moment(row[10]),
            )
            for row in rows
        ]

    def _by(self, search: Search, column: str) -> str:
        """Return a column as it is compared: only by one of them jobs are looked up."""
        if search.uid or search.calling_ae_title:
            return f"{self._unused}job.{column}"
        wanted = {"route": search.route, "destination": search.destinations}
        is_rare = search.state and search.state not in _SETTLED
        if is_rare or not any(wanted.values()):
            first = "state"
        else:
            first = next(name for name, value in wanted.items() if value)
        return f"job.{column}" if column == first else f"{self._unused}job.{column}"

    def _rows(self, statement: str, **values: object) -> list[Any]:
        with _translated():
            return self._database.execute(statement, values).fetchall()


def slot_of(moment: datetime) -> str:
    """Return the name of the ten minutes that a moment is in."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:_SLOT_LENGTH]


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise SpoolError(
            f"the queue cannot be read: {error}",
            hint="Has the node been started once? Its account has to be able to read it.",
        ) from error

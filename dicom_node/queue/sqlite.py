"""A queue in a SQLite file: what is added survives a power cut.

Several processes may open the same file. Every statement stands in a file ``.sql``.
"""

from __future__ import annotations

import json
from datetime import datetime
from importlib import resources
from typing import TYPE_CHECKING, Final

from dicom_node.durable import database
from dicom_node.queue import recording
from dicom_node.queue.job import (
    CLASHES,
    NOBODY,
    Arrival,
    Held,
    Job,
    JobState,
    Lane,
    OfInstance,
    Owed,
    Resting,
    Taken,
)
from dicom_node.queue.order import BROKEN_GLASS, Order
from dicom_node.queue.sqlite_notes import SqliteNotes
from dicom_node.queue.sqlite_orders import SqliteOrders, SqliteStudies
from dicom_node.queue.sqlite_purging import SqlitePurging
from dicom_node.queue.sqlite_tallies import SqliteTallies
from dicom_node.queue.statements import SQL, as_text, keep_trigger, translated
from dicom_node.queue.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import timedelta
    from pathlib import Path


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

_FIELDS: Final = (
    "id",
    "instance_id",
    "sop_instance_uid",
    "file",
    "filtered",
    "purpose",
    "route",
    "destination",
    "study_instance_uid",
    "priority",
    "attempts",
    "claim",
    "crashes",
    "faults",
)
"""Of a job, in the order of the statement ``job``."""


class SqliteQueue(SqliteOrders, SqliteStudies, SqliteTallies, SqlitePurging):
    """See :class:`dicom_node.queue.job.Queue`.

    One connection, which several threads may use.
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
        with translated():
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
        with translated():
            for index in ("earlier", "due", "studies", "working", "purged"):
                self._database.execute(SQL[f"index_{index}"])
            for trigger in ("received", "sent"):
                keep_trigger(self._database, SQL[f"trigger_{trigger}"])
        self._begin_tallies()
        with translated():
            recording.prepare(self._database)

    def _missing(self) -> list[tuple[str, str]]:
        """Return the columns that the file's version of the queue did not have."""
        found = set()
        with translated():
            for table in ("instance", "job", "glass"):
                columns = self._database.execute(f"PRAGMA table_info ({table})")
                found |= {(table, column[1]) for column in columns.fetchall()}
        return sorted(_LATER_COLUMNS.keys() - found)

    def notes(self) -> SqliteNotes:
        """Return what came in and went out; see the protocol."""
        return SqliteNotes(self._all, self._transaction, as_text)

    def close(self) -> None:
        """Close the file."""
        self._database.close()
        self._turn.close()

    def assign(
        self, destinations: Mapping[str, str] | None = None, *, is_quiet: bool = True
    ) -> None:
        """Put jobs into their routes' lanes.

        For jobs of another time, when a route may have had another action.

        Args:
            destinations: By route: where those of its jobs are owed that do not say,
                since an earlier version wrote them down.
            is_quiet: Whether nobody works: else what somebody has stays in its lane.
        """
        with self._transaction():
            passed = json.dumps(sorted(self._passed))
            self._all("assign", passed=passed, is_quiet=is_quiet)
            for route, destination in (destinations or {}).items():
                self._all("assign_destination", route=route, destination=destination)

    def add(
        self,
        arrival: Arrival,
        owed: Sequence[Owed],
        now: datetime,
        sent_after: datetime | None = None,
        is_kept: Callable[[str], bool] = lambda _: True,
    ) -> Taken:
        """Owe ``arrival`` to each of ``owed``; see the protocol."""
        after = as_text(now if sent_after is None else sent_after)
        lost = self._lost(arrival, is_kept)
        with self._transaction():
            same = self._all("find_same", **arrival._asdict())
            ((number, file),) = same or [(None, None)]
            # Under another name it has just come in again, and is there.
            is_lost = file is not None and file == lost
            stands = {to: self._standing(number, to, after) for to in owed}
            wanted = [to for to in owed if stands[to] is None]
            for last in filter(None, stands.values()):
                self._all("wake", id=last, now=as_text(now))
            clashes = any(
                self._all(
                    "find_clashing",
                    **arrival._asdict(),
                    route=route,
                    sent_after=after,
                    clashes=CLASHES,
                )
                for route in {to.route for to in wanted}
            )
            if number is None:
                ((number,),) = self._all(
                    "add_instance", **arrival._asdict(), now=as_text(now)
                )
            is_owed = bool(wanted) or (is_lost and bool(self._all("open", id=number)))
            needs_file = is_owed and (file is None or is_lost)
            if needs_file and same:
                self._all("refile", id=number, file=arrival.file)
            study, due = arrival.study_instance_uid, dict[str, str]()
            for to in wanted:
                if to.route not in due:
                    # What clashes is nothing that a study waits for.
                    waits = to._replace(gathering=None) if clashes else to
                    due[to.route] = self._due(waits, study, now)
                self._all(
                    "add_job",
                    instance_id=number,
                    study_instance_uid=study,
                    **to._asdict(),
                    lane=self._lane_of(to.route),
                    state=JobState.QUARANTINED if clashes else JobState.WAITING,
                    now=due[to.route],
                    reason=CLASHES if clashes else "",
                )
            clashed = bool(self._all("clashed", id=number, reason=CLASHES))
        if clashes or (clashed and not wanted):
            return Taken.CLASHING if needs_file else Taken.CLASHING_AGAIN
        return Taken.OWED if needs_file else Taken.KNOWN

    def _lost(self, arrival: Arrival, is_kept: Callable[[str], bool]) -> str | None:
        """Return the file of the same bytes, if there should be one and is none.

        To look takes as long as a file is large, so nobody waits for it.
        """
        with translated():
            same = self._all("find_same", **arrival._asdict())
        return next((f for _, f in same if f is not None and not is_kept(f)), None)

    def _standing(self, number: int | None, to: Owed, sent_after: str) -> int | None:
        """Return the job by which somebody has an instance or is to have it, if any."""
        for job_id, state, settled in self._all(
            "last_job", instance_id=number, **to._asdict()
        ):
            is_over = state == JobState.DROPPED or (
                state == JobState.SENT and settled <= sent_after
            )
            return None if is_over else int(job_id)
        return None

    def claim(
        self, now: datetime, lease: timedelta, resting: Resting = NOBODY
    ) -> Job | None:
        """Return the most urgent job that is due; see the protocol."""
        until = as_text(now + lease)
        with self._transaction(lasts=False):
            for lane in self._lanes:
                jobs = self._claimed(
                    "claim",
                    now=as_text(now),
                    lease_until=until,
                    lane=lane,
                    glass=BROKEN_GLASS,
                    **_names(resting),
                )
                if jobs:
                    return jobs[0]
        return None

    def claim_more(
        self,
        like: Job,
        now: datetime,
        lease: timedelta,
        count: int,
        resting: Resting = NOBODY,
    ) -> list[Job]:
        """Return jobs that were never tried; see the protocol."""
        if like.route in resting.routes or like.destination in resting.destinations:
            return []
        values = {
            "study": like.study_instance_uid,
            "route": like.route,
            "destination": like.destination,
            "priority": like.priority,
            "now": as_text(now),
            "lease_until": as_text(now + lease),
        }
        with self._transaction(lasts=False):
            jobs = self._claimed("claim_study", **values, count=count)
            if len(jobs) < count:
                left = count - len(jobs)
                values["lane"] = self._lane_of(like.route)
                jobs += self._claimed("claim_others", **values, count=left)
        return jobs

    def _lane_of(self, route: str) -> Lane:
        return Lane.PASS if route in self._passed else Lane.FILTER

    def _claimed(self, name: str, **values: object) -> list[Job]:
        rows = [
            self._all("job", id=job_id)[0] for (job_id,) in self._all(name, **values)
        ]
        jobs = [
            Job(**dict(zip(_FIELDS, row, strict=True)), order=_order(*order))
            for *row, by, why, at, receiver in rows
            for order in [(by, why, at, receiver)]
        ]
        return sorted(jobs, key=lambda job: (-job.priority, job.id))

    def adopt(self, job: Job, purpose: str) -> str | None:
        """Let ``job`` send what another has; see the protocol."""
        with self._transaction():
            made = self._all(
                "made",
                instance_id=job.instance_id,
                route=job.route,
                kind=purpose.split(" ", maxsplit=1)[0],
            )
            for (file,) in made:
                kept = {"id": job.id, "claim": job.claim, "purpose": purpose}
                values = {**kept, "file": file}
                if self._done("keep_filtered", **values):
                    return str(file)
        return None

    def keep_filtered(
        self, job: Job, file: str, purpose: str, *, lasts: bool = True
    ) -> bool:
        """Remember what ``job`` is to send; see the protocol."""
        kept = {"id": job.id, "claim": job.claim, "file": file, "purpose": purpose}
        with self._transaction(lasts=lasts):
            return self._done("keep_filtered", **kept) == 1

    def sent(
        self, jobs: Sequence[Job], now: datetime, receivers: Sequence[str] = ()
    ) -> list[bool]:
        """Settle each of ``jobs``; see the protocol."""
        moment = as_text(now)
        names = receivers or [""] * len(jobs)
        with self._transaction():
            return [
                self._settled(job, JobState.SENT, settled=moment, receiver=name)
                for job, name in zip(jobs, names, strict=True)
            ]

    def dropped(self, job: Job, reason: str) -> bool:
        """Settle ``job`` unsent; see the protocol."""
        return self._settle(job, JobState.DROPPED, reason=reason)

    def retry(
        self,
        job: Job,
        not_before: datetime,
        reason: str,
        *,
        is_fault: bool = False,
        is_free: bool = False,
    ) -> bool:
        """Put ``job`` back; see the protocol."""
        return self._settle(
            job,
            JobState.WAITING,
            not_before,
            reason,
            faults=int(is_fault),
            free=int(is_free),
        )

    def give_back(self, jobs: Sequence[Job], now: datetime) -> list[bool]:
        """Put back ``jobs`` that were not begun; see the protocol."""
        with self._transaction(lasts=False):
            return [self._settled(job, JobState.WAITING, now, free=1) for job in jobs]

    def hold(self, job: Job, reason: str) -> bool:
        """Hold ``job``; see the protocol."""
        return self._settle(job, JobState.HELD, reason=reason)

    def quarantine(self, job: Job, reason: str) -> bool:
        """Quarantine ``job``; see the protocol."""
        return self._settle(job, JobState.QUARANTINED, reason=reason)

    def release_claims(
        self, not_before: datetime, *, suspects: Collection[int] = ()
    ) -> int:
        """Put back every claimed job; see the protocol."""
        return sum(
            self._changed(
                "release_claims",
                not_before=as_text(not_before),
                suspects=json.dumps(sorted(suspects)),
                lane=lane,
            )
            for lane in self._lanes
        )

    def forget_sent(self, jobs: Sequence[OfInstance] | None = None) -> list[str]:
        """Forget files that are owed to nobody; see the protocol."""
        names: list[str] = []
        with self._transaction():
            if jobs is None:
                numbers = [number for (number,) in self._all("with_files")]
            else:
                numbers = [job.instance_id for job in jobs]
            for number in numbers:
                done = self._all("done_files", id=number)
                names += [name for (name,) in done]
                if done:
                    self._all("forget_filtered", id=number)
                    self._all("forget_instance", id=number)
        return names

    def files(self) -> set[str]:
        """Return the names of all files that are still needed."""
        with translated():
            return {name for (name,) in self._all("files")}

    def counts(self) -> dict[JobState, int]:
        """Return how many jobs stand where."""
        with translated():
            found = dict(self._all("counts"))
        return {state: found.get(state.value, 0) for state in JobState}

    def owed(self) -> dict[str, int]:
        """Return how many jobs of each route are not settled; see the protocol."""
        with translated():
            return dict(self._all("owed"))

    def held(self, state: JobState = JobState.HELD) -> list[Held]:
        """Return every job that is held, or quarantined."""
        with translated():
            return [Held(*row) for row in self._all("held", state=state.value)]

    def waiting_since(self) -> datetime | None:
        """Return when what waits longest came in; see the protocol."""
        with translated():
            ((since,),) = self._all("waiting_since")
        return None if since is None else datetime.fromisoformat(since)

    def release(self, job_id: int, now: datetime) -> bool:
        """Wake a job; see the protocol."""
        return self._changed("release", id=job_id, now=as_text(now)) == 1

    def discard(self, job_id: int, reason: str) -> bool:
        """Drop a job; see the protocol."""
        return self._changed("discard", id=job_id, reason=reason) == 1

    def _settle(
        self,
        job: Job,
        state: JobState,
        not_before: datetime | None = None,
        reason: str = "",
        faults: int = 0,
        free: int = 0,
    ) -> bool:
        with self._transaction():
            return self._settled(
                job, state, not_before, reason, faults=faults, free=free
            )

    def _settled(
        self,
        job: Job,
        state: JobState,
        not_before: datetime | None = None,
        reason: str = "",
        settled: str = "",
        receiver: str = "",
        faults: int = 0,
        free: int = 0,
    ) -> bool:
        """Settle a job in a transaction that is open."""
        values = {
            "id": job.id,
            "claim": job.claim,
            "state": state.value,
            "not_before": None if not_before is None else as_text(not_before),
            "reason": reason,
            "settled": settled,
            "receiver": receiver,
            "faults": faults,
            "free": free,
        }
        is_settled = self._done("settle", **values) == 1
        if is_settled and job.order is not None and state is not JobState.WAITING:
            self._withdraw(job.id)
        return is_settled


def _order(
    by: str | None, why: str | None, at: str | None, receiver: str | None
) -> Order | None:
    if by is None or why is None or at is None:
        return None
    return Order(by, why, datetime.fromisoformat(at), receiver or "")


def _names(resting: Resting) -> dict[str, str]:
    return {
        kind: json.dumps(sorted(names)) for kind, names in resting._asdict().items()
    }

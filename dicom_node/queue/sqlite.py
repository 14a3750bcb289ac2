"""A queue in a SQLite file: what is added survives a power cut.

Several processes may open the same file. Every statement stands in ``queue.sql``.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from datetime import UTC
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from dicom_node.durable import database
from dicom_node.errors import SpoolError
from dicom_node.queue.job import Arrival, Held, Job, JobState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime, timedelta
    from pathlib import Path


def _statements() -> dict[str, str]:
    """Return the statements of ``queue.sql`` by the name in the line before each."""
    text = resources.files("dicom_node.queue").joinpath("queue.sql").read_text("utf-8")
    found: dict[str, list[str]] = {}
    name, is_new = "", True
    for line in text.splitlines():
        if is_new and line.startswith("-- "):
            name, is_new = line[3:], False
            found[name] = []
        elif not line:
            is_new = True
        elif not line.startswith("-- "):
            found[name].append(line)
    return {name: "\n".join(lines) for name, lines in found.items()}


_SQL: Final = _statements()


class SqliteQueue:
    """See :class:`dicom_node.queue.job.Queue`.

    One connection; it may cross threads if its user lets only one at a time in.
    """

    def __init__(self, path: Path) -> None:
        """Open the queue, or make it.

        Raises:
            SpoolError: The file cannot be opened or is no queue.
        """
        schema = resources.files("dicom_node.queue").joinpath("schema.sql")
        with _translated():
            self._database = database(
                path, schema.read_text("utf-8"), is_of_one_thread=False
            )

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def add(self, arrival: Arrival, routes: Sequence[str], now: datetime) -> bool:
        """Owe ``arrival`` to each of ``routes``; see the protocol."""
        with self._transaction():
            same = self._all("find_same", **arrival._asdict())
            ((instance_id,),) = same or self._all(
                "add_instance", **arrival._asdict(), now=_text(now)
            )
            for route in routes:
                owed = {"instance_id": instance_id, "route": route}
                open_jobs = self._all("open_job", **owed)
                if not open_jobs:
                    self._all("add_job", **owed, now=_text(now))
                for job_id, _ in open_jobs:
                    self._all("release", id=job_id, now=_text(now))
        return not same

    def claim(self, now: datetime, lease: timedelta) -> Job | None:
        """Return the job that has been due longest; see the protocol."""
        with self._transaction():
            rows = self._all("claim", now=_text(now), lease_until=_text(now + lease))
            if not rows:
                return None
            job_id, instance_id, route, attempts, filtered, purpose = rows[0]
            ((sop_instance_uid, file),) = self._all("instance", id=instance_id)
        return Job(
            id=job_id,
            instance_id=instance_id,
            sop_instance_uid=sop_instance_uid,
            file=file,
            filtered=filtered,
            purpose=purpose,
            route=route,
            attempts=attempts,
        )

    def keep_filtered(self, job: Job, file: str, purpose: str) -> None:
        """Remember what ``job`` is to send; see the protocol."""
        with self._transaction():
            self._all(
                "keep_filtered",
                id=job.id,
                attempts=job.attempts,
                file=file,
                purpose=purpose,
            )

    def sent(self, job: Job) -> bool:
        """Settle ``job``; see the protocol."""
        return self._settle(job, JobState.SENT)

    def dropped(self, job: Job, reason: str) -> bool:
        """Settle ``job`` unsent; see the protocol."""
        return self._settle(job, JobState.DROPPED, reason=reason)

    def retry(self, job: Job, not_before: datetime, reason: str) -> bool:
        """Put ``job`` back; see the protocol."""
        return self._settle(job, JobState.WAITING, not_before, reason)

    def hold(self, job: Job, reason: str) -> bool:
        """Hold ``job``; see the protocol."""
        return self._settle(job, JobState.HELD, reason=reason)

    def release_claims(self, not_before: datetime) -> int:
        """Put back every claimed job; see the protocol."""
        with self._transaction():
            return self._database.execute(
                _SQL["release_claims"], {"not_before": _text(not_before)}
            ).rowcount

    def forget_sent(self) -> list[str]:
        """Forget files that are owed to nobody; see the protocol."""
        with self._transaction():
            names = [name for (name,) in self._all("done_files")]
            self._all("forget_filtered")
            self._all("forget_instances")
        return names

    def files(self) -> set[str]:
        """Return the names of all files that are still needed."""
        with _translated():
            return {name for (name,) in self._all("files")}

    def counts(self) -> dict[JobState, int]:
        """Return how many jobs stand where."""
        with _translated():
            found = dict(self._all("counts"))
        return {state: found.get(state.value, 0) for state in JobState}

    def held(self) -> list[Held]:
        """Return every held job."""
        with _translated():
            return [Held(*row) for row in self._all("held")]

    def release(self, job_id: int, now: datetime) -> bool:
        """Wake a held job; see the protocol."""
        with self._transaction():
            woken = self._database.execute(
                _SQL["release"], {"id": job_id, "now": _text(now)}
            )
            return woken.rowcount == 1

    def _settle(
        self,
        job: Job,
        state: JobState,
        not_before: datetime | None = None,
        reason: str = "",
    ) -> bool:
        with self._transaction():
            settled = self._database.execute(
                _SQL["settle"],
                {
                    "id": job.id,
                    "attempts": job.attempts,
                    "state": state.value,
                    "not_before": None if not_before is None else _text(not_before),
                    "reason": reason,
                },
            )
            return settled.rowcount == 1

    def _all(self, name: str, **values: object) -> list[Any]:
        return self._database.execute(_SQL[name], values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _translated():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise


def _text(moment: datetime) -> str:
    """Return a moment as text that sorts as time does."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise SpoolError(
            f"the queue cannot be used: {error}",
            hint="Check that the state folder is writable and its disk not full.",
        ) from error

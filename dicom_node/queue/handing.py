"""What a queue in a SQLite file still owes, taken out of it and put into another's.

Each part is taken in one transaction that also notes that it was, so that it is taken
once, however often it is tried and whatever became of it since. Orders to send something
as it came are not handed over: whoever gave one gives it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dicom_node.durable import database
from dicom_node.errors import SpoolError
from dicom_node.queue.arrival import CLASHES
from dicom_node.queue.job import JobState
from dicom_node.queue.sql_orders import Withdrawing
from dicom_node.queue.statements import SQL, as_text, translated
from dicom_node.queue.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

_INSTANCE: Final = (
    "sop_instance_uid",
    "study_instance_uid",
    "digest",
    "file",
    "received",
    "sop_class_uid",
    "calling_ae_title",
    "patient",
)
_JOB: Final = (
    "route",
    "destination",
    "state",
    "attempts",
    "not_before",
    "filtered",
    "purpose",
    "reason",
    "priority",
    "crashes",
    "faults",
    "receiver",
    "settled",
)
_PROMISE: Final = (
    "destination",
    "study",
    "sop_class_uid",
    "sop_instance_uid",
    "sent",
    "asks",
    "refusals",
    "is_open",
)

Row = dict[str, Any]


class OpenJob(NamedTuple):
    """A job that is not settled."""

    id: int
    """In the queue that it was taken out of."""
    values: Row
    promise: Row | None
    """What its destination is to promise, if it has the instance."""


class OpenInstance(NamedTuple):
    """An instance that is owed to somebody."""

    id: int
    """In the queue that it was taken out of."""
    values: Row
    jobs: tuple[OpenJob, ...]

    @property
    def files(self) -> list[str]:
        """Return the names of its files in the spool, its own first."""
        named = [self.values["file"], *(j.values["filtered"] for j in self.jobs)]
        return list(dict.fromkeys(name for name in named if name))


class Took(NamedTuple):
    """What came of one part, in jobs."""

    added: int
    known: int
    """They were here already, or were done here."""
    is_new: bool = True
    """False where this part was taken before."""


class Handing(Withdrawing):
    """One connection to the file of a queue; one thread."""

    def __init__(self, path: Path, passed: Collection[str] = ()) -> None:
        """Open the file.

        Args:
            path: Of a queue that is there, commitments included.
            passed: Routes whose jobs are in the lane ``pass``.

        Raises:
            SpoolError: It cannot be opened.
        """
        if not path.exists():
            raise SpoolError(f"there is no queue {path}")
        self._passed = frozenset(passed)
        self._turn = Turn(path.with_name(f"{path.name}.turn"))
        with translated():
            self._database = database(path, SQL["handing_schema"])

    def close(self) -> None:
        """Close the file."""
        self._database.close()
        self._turn.close()

    def owed(self) -> list[OpenInstance]:
        """Return all that is not settled, in the order in which it came in.

        Only where nobody works off the queue: what somebody has is waiting again.
        """
        with self._reading():
            return [
                OpenInstance(
                    number,
                    dict(zip(_INSTANCE, row, strict=True)),
                    tuple(self._job(job) for job in self._all("open_jobs", id=number)),
                )
                for number, *row in self._all("open_instances")
            ]

    def _job(self, row: Sequence[Any]) -> OpenJob:
        number, *rest = row
        values = dict(zip(_JOB, rest, strict=True))
        if values["state"] == JobState.WORKING:
            values["state"] = JobState.WAITING.value
        rows = self._all("open_promise", id=number)
        promise = dict(zip(_PROMISE, rows[0], strict=True)) if rows else None
        return OpenJob(number, values, promise)

    def requests(self) -> list[Row]:
        """Return what peers have asked and were not told."""
        names = ("peer", "transaction_uid", "instances")
        with translated():
            rows = self._all("open_requests")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def taken(self, handover: str) -> tuple[int, Took]:
        """Return how many parts of a hand-over are here, and what came of them."""
        with translated():
            ((parts, added, known),) = self._all("sum_handed", handover=handover)
        return parts, Took(added, known)

    def has(self, handover: str, part: int) -> bool:
        """Say whether a part was taken."""
        with translated():
            return bool(self._all("was_handed", handover=handover, part=part))

    def take(
        self,
        handover: str,
        part: int,
        instance: OpenInstance,
        now: datetime,
        sent_after: datetime,
    ) -> Took:
        """Owe an instance as it was owed; durable when this returns.

        What waited for its study, or for its time, is due now.

        Args:
            handover: Which hand-over.
            part: Which part of it.
            instance: Its files are in this spool, under the names that it has here.
            now: Aware.
            sent_after: Other bytes under the same UID that were sent since clash.
        """
        values, added, known = instance.values, 0, 0
        with self._transaction():
            for earlier in self._all("was_handed", handover=handover, part=part):
                return Took(int(earlier[0]), int(earlier[1]), is_new=False)
            same = self._all(
                "find_same",
                sop_instance_uid=values["sop_instance_uid"],
                digest=values["digest"],
            )
            number = same[0][0] if same else None
            wanted = [
                job
                for job in instance.jobs
                if number is None or not self._stands(number, job.values)
            ]
            known = len(instance.jobs) - len(wanted)
            clashing = {
                job.id
                for job in wanted
                if self._clashes(values, job.values, sent_after)
            }
            if wanted:
                if number is None:
                    ((number,),) = self._all("instance_again", **values)
                elif same[0][1] is None:
                    self._all("refile", id=number, file=values["file"])
                for job in wanted:
                    self._add(number, values, job, now, is_clash=job.id in clashing)
            added = len(wanted)
            counts = {"added": added, "known": known}
            self._all("note_handed", handover=handover, part=part, **counts)
        return Took(added, known)

    def _stands(self, number: int, job: Mapping[str, Any]) -> bool:
        to = {"route": job["route"], "destination": job["destination"]}
        return bool(self._all("stands", instance_id=number, **to))

    def _clashes(
        self, values: Mapping[str, Any], job: Mapping[str, Any], sent_after: datetime
    ) -> bool:
        return bool(
            self._all(
                "find_clashing",
                sop_instance_uid=values["sop_instance_uid"],
                digest=values["digest"],
                route=job["route"],
                sent_after=as_text(sent_after),
                clashes=CLASHES,
            )
        )

    def _add(
        self,
        number: int,
        values: Mapping[str, Any],
        job: OpenJob,
        now: datetime,
        *,
        is_clash: bool,
    ) -> None:
        row = job.values
        if is_clash:
            row = row | {"state": JobState.QUARANTINED.value, "reason": CLASHES}
        elif row["state"] == JobState.WAITING:
            row = row | {"not_before": as_text(now)}
        ((new,),) = self._all(
            "job_again",
            **row,
            instance_id=number,
            study_instance_uid=values["study_instance_uid"],
            lane="pass" if row["route"] in self._passed else "filter",
        )
        if job.promise is not None and not is_clash:
            self._all("promise_again", job_id=new, now=as_text(now), **job.promise)

    def note(self, handover: str) -> None:
        """Note that all that is no instance was taken: part 0."""
        with self._transaction():
            zero = {"handover": handover, "part": 0}
            if not self._all("was_handed", **zero):
                self._all("note_handed", **zero, added=0, known=0)

    def needs(self, file: str) -> bool:
        """Say whether the queue needs a file of the spool."""
        with translated():
            return bool(self._all("needs_file", file=file))

    def take_request(self, request: Row, now: datetime) -> None:
        """Owe a peer an answer."""
        with self._transaction():
            self._all("request_again", **request, now=as_text(now))

    def give_away(
        self, jobs: Sequence[int], requests: Sequence[Row], reason: str
    ) -> int:
        """Settle jobs unsent, since another queue has them; return how many."""
        count = 0
        with self._transaction():
            for number in jobs:
                given = self._done("give_away", id=number, reason=reason)
                if given:
                    self._withdraw(number)
                    for name in ("forget_promise_asked", "forget_promise"):
                        self._done(name, id=number)
                count += given
            for one in requests:
                named = {n: one[n] for n in ("peer", "transaction_uid")}
                self._done("forget_request", **named)
        return count

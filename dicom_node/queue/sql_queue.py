"""What every queue does that is kept by statements of SQL, whoever carries them out.

Every statement stands in a file ``.sql``.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING

from dicom_node.queue.arrival import CLASHES, Arrival, Owed, Taken
from dicom_node.queue.job import Held, JobState, OfInstance
from dicom_node.queue.purging import Purging
from dicom_node.queue.sql_claims import SqlClaims
from dicom_node.queue.sql_notes import SqlNotes
from dicom_node.queue.sql_orders import SqlOrders, SqlStudies
from dicom_node.queue.sql_tallies import SqlTallies
from dicom_node.queue.statements import as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class SqlQueue(SqlClaims, SqlOrders, SqlStudies, SqlTallies, Purging):
    """See :class:`dicom_node.queue.protocol.Queue`; how it forgets is up to its database.

    One connection, which several threads may use.
    """

    def notes(self) -> SqlNotes:
        """Return what came in and went out; see the protocol."""
        return SqlNotes(self._all, self._transaction, as_text)

    def assign(
        self, destinations: Mapping[str, str] | None = None, *, is_quiet: bool = True
    ) -> None:
        """Put jobs into their routes' lanes.

        For jobs of another time, when a route may have had another action. Where other
        nodes work, what was taken in to be marked stays with those that mark it.

        Args:
            destinations: By route: where those of its jobs are owed that do not say,
                since an earlier version wrote them down.
            is_quiet: Whether nobody works: else what somebody has stays in its lane.
        """
        with self._transaction():
            passed = json.dumps(sorted(self._passed))
            self._all(
                "assign", passed=passed, is_quiet=is_quiet, is_shared=self._is_shared
            )
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
            self._alone_with(f"instance {arrival.sop_instance_uid}")
            same = self._all("find_same", **arrival._asdict())
            ((number, file),) = same or [(None, None)]
            # Under another name it has just come in again, and is there.
            is_lost = file is not None and file == lost
            stands = {to: self._standing(number, to, after) for to in owed}
            wanted = [to for to in owed if stands[to] is None]
            for to, last in stands.items():
                if last is not None:
                    marks = to.marks and self._is_shared
                    self._all("wake", id=last, now=as_text(now), marks=marks)
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
                    **to._replace(marks=to.marks and self._is_shared)._asdict(),
                    lane=self._lane_of(to.route),
                    state=JobState.QUARANTINED if clashes else JobState.WAITING,
                    now=due[to.route],
                    reason=CLASHES if clashes else "",
                )
            clashed = not wanted and bool(
                self._all("clashed", id=number, reason=CLASHES)
            )
        if clashes or clashed:
            return Taken.CLASHING if needs_file else Taken.CLASHING_AGAIN
        return Taken.OWED if needs_file else Taken.KNOWN

    def _lost(self, arrival: Arrival, is_kept: Callable[[str], bool]) -> str | None:
        """Return the file of the same bytes, if there should be one and is none.

        To look takes as long as a file is large, so nobody waits for it.
        """
        with self._translated():
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

    def forget_sent(self, jobs: Sequence[OfInstance] | None = None) -> list[str]:
        """Forget files that are owed to nobody; see the protocol."""
        names: list[str] = []
        with self._transaction():
            if jobs is None:
                numbers = [number for (number,) in self._all("with_files")]
            else:
                numbers = sorted({job.instance_id for job in jobs})
            for number in numbers:
                self._all("hold_instance", id=number)
                done = self._all("done_files", id=number)
                names += [name for (name,) in done]
                if done:
                    self._all("forget_filtered", id=number)
                    self._all("forget_instance", id=number)
        return names

    def files(self) -> set[str]:
        """Return the names of all files that are still needed."""
        with self._translated():
            return {name for (name,) in self._all("files")}

    def counts(self) -> dict[JobState, int]:
        """Return how many jobs stand where."""
        with self._translated():
            found = dict(self._all("counts"))
        return {state: found.get(state.value, 0) for state in JobState}

    def owed(self) -> dict[str, int]:
        """Return how many jobs of each route are not settled; see the protocol."""
        with self._translated():
            return dict(self._all("owed"))

    def held(self, state: JobState = JobState.HELD) -> list[Held]:
        """Return every job that is held, or quarantined."""
        with self._translated():
            return [Held(*row) for row in self._all("held", state=state.value)]

    def waiting_since(self) -> datetime | None:
        """Return when what waits longest came in; see the protocol."""
        with self._translated():
            ((since,),) = self._all("waiting_since")
        return None if since is None else datetime.fromisoformat(since)

    def release(self, job_id: int, now: datetime) -> bool:
        """Wake a job; see the protocol."""
        return self._changed("release", id=job_id, now=as_text(now)) == 1

    def discard(self, job_id: int, reason: str) -> bool:
        """Drop a job; see the protocol."""
        return self._changed("discard", id=job_id, reason=reason) == 1

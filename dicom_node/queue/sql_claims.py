"""How jobs are claimed and settled, whoever carries out the statements of SQL."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Final

from dicom_node.queue.claims import NOBODY, Resting
from dicom_node.queue.job import Job, JobState, Lane
from dicom_node.queue.order import BROKEN_GLASS, Order
from dicom_node.queue.sql_orders import Withdrawing
from dicom_node.queue.statements import as_text

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import timedelta

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
    "calling_ae_title",
    "marks",
)
"""Of a job, in the order of the statement ``job``."""


class SqlClaims(Withdrawing):
    """Claims, and what ends them; see :class:`dicom_node.queue.claims.Claims`."""

    _passed: frozenset[str]
    """Routes whose jobs are in the lane ``pass``."""
    _lanes: tuple[Lane, ...]
    """Whose jobs are claimed, and put back."""
    _is_shared: bool = False
    """Whether other nodes work off the queue, who may know a route otherwise."""

    def claim(
        self, now: datetime, lease: timedelta, resting: Resting = NOBODY
    ) -> Job | None:
        """Return the most urgent job that is due; see the protocol."""
        until = as_text(now + lease)
        with self._transaction(lasts=False):
            for lane in self._lanes:
                self._alone_with(f"claims {lane}")
                jobs = self._claimed(
                    "claim",
                    now=as_text(now),
                    lease_until=until,
                    lane=lane,
                    glass=BROKEN_GLASS,
                    **_names(self._resting_in(lane, resting)),
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
            "lane": self._lane_of(like.route),
        }
        with self._transaction(lasts=False):
            self._alone_with(f"claims {self._lane_of(like.route)}")
            jobs = self._claimed("claim_study", **values, count=count)
            if len(jobs) < count:
                left = count - len(jobs)
                jobs += self._claimed("claim_others", **values, count=left)
        return jobs

    def renew(self, jobs: Sequence[Job], until: datetime) -> None:
        """Lease claimed jobs until then; see the protocol."""
        with self._transaction(lasts=False):
            for job in jobs:
                self._done(
                    "renew", id=job.id, claim=job.claim, lease_until=as_text(until)
                )

    def upcoming(self, like: Job, now: datetime, count: int) -> list[Job]:
        """Return jobs that are likely to be claimed next; see the protocol."""
        if self._is_shared:
            return []
        values = {
            "route": like.route,
            "destination": like.destination,
            "priority": like.priority,
            "now": as_text(now),
            "lane": self._lane_of(like.route),
            "count": count,
        }
        with self._transaction(lasts=False):
            return self._jobs("upcoming", **values)

    def _lane_of(self, route: str) -> Lane:
        return Lane.PASS if route in self._passed else Lane.FILTER

    def _resting_in(self, lane: Lane, resting: Resting) -> Resting:
        """Return whose jobs of a lane are left alone.

        What others are to filter, of a route that only passes here, is theirs.
        """
        if not self._is_shared or lane is not Lane.FILTER:
            return resting
        return resting._replace(routes=resting.routes | self._passed)

    def _claimed(self, name: str, **values: object) -> list[Job]:
        jobs = self._jobs(name, **values)
        return sorted(jobs, key=lambda job: (-job.priority, job.id))

    def _jobs(self, name: str, **values: object) -> list[Job]:
        rows = [
            self._all("job", id=job_id)[0] for (job_id,) in self._all(name, **values)
        ]
        return [
            Job(**dict(zip(_FIELDS, row, strict=True)), order=_order(*order))
            for *row, by, why, at, receiver in rows
            for order in [(by, why, at, receiver)]
        ]

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

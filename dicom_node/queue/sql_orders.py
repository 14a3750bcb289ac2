"""What people order of a queue in a database, and the studies that wait in it."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING, Final

from dicom_node.queue.job import JobState
from dicom_node.queue.order import BROKEN_GLASS, HeldRoute, Standing
from dicom_node.queue.statements import Statements, as_text
from dicom_node.queue.study import NOT_YET, Stage, Study, arrived

if TYPE_CHECKING:
    from dicom_node.queue.arrival import Owed
    from dicom_node.queue.job import Job
    from dicom_node.queue.order import Order

logger = logging.getLogger(__name__)

_NOT_YET: Final = as_text(NOT_YET)


class Withdrawing(Statements):
    """What ends orders, for whatever settles jobs."""

    def _withdraw(self, job_id: int) -> None:
        """End the order of a job, if there is one, in a transaction that is open."""
        self._done("calm", id=job_id)
        self._done("withdraw", id=job_id)


class SqlOrders(Withdrawing):
    """See :class:`dicom_node.queue.order.Orders`."""

    def standing(self, job_id: int) -> Standing | None:
        """Return where a job stands; see the protocol."""
        with self._translated():
            for number, uid, route, to, state, priority in self._all(
                "standing", id=job_id
            ):
                return Standing(number, uid, route, to, JobState(state), priority)
        return None

    def standing_of_study(self, study_instance_uid: str) -> list[Standing]:
        """Return where the jobs of a study stand; see the protocol."""
        with self._translated():
            numbers = self._all("jobs_of_study", study=study_instance_uid)
        return [found for (n,) in numbers if (found := self.standing(n)) is not None]

    def prioritise(self, job_id: int, priority: int) -> bool:
        """Say how urgent a job is; see the protocol."""
        return self._changed("prioritise", id=job_id, priority=priority) == 1

    def break_glass(self, job_id: int, order: Order) -> bool:
        """Order a job to send its instance as it came; see the protocol."""
        values = {"by": order.by, "why": order.why, "at": as_text(order.at)}
        with self._transaction():
            if not self._done("break_glass", id=job_id, **values):
                return False
            self._done("hurry", id=job_id, now=as_text(order.at), priority=BROKEN_GLASS)
        return True

    def bind(self, job: Job, receiver: str) -> bool:
        """Remember who may have what a job sends; see the protocol."""
        values = {"id": job.id, "claim": job.claim, "receiver": receiver}
        return self._changed("bind", **values) == 1

    def hold_route(self, held: HeldRoute) -> bool:
        """Let the jobs of a route wait; see the protocol."""
        values = {**held._asdict(), "since": as_text(held.since)}
        return self._changed("hold_route", **values) == 1

    def release_route(self, route: str) -> bool:
        """Let them be done again; see the protocol."""
        return self._changed("release_route", route=route) == 1

    def held_routes(self) -> list[HeldRoute]:
        """Return the routes whose jobs wait; see the protocol."""
        with self._translated():
            rows = self._all("held_routes")
        return [
            HeldRoute(route, by, why, datetime.fromisoformat(since))
            for route, by, why, since in rows
        ]


class SqlStudies(Statements):
    """See :class:`dicom_node.queue.study.Studies`."""

    def _due(self, to: Owed, study: str, now: datetime) -> str:
        """Return when a job is due, its study having one instance more.

        In a transaction that is open; once for each route.
        """
        if to.gathering is None or not study:
            return as_text(now)
        self._alone_with(f"study {study}")
        rows = self._all("study", route=to.route, study=study)
        known = _study(rows[0]) if rows else None
        after = arrived(known, to.route, study, to.gathering, now)
        values = {**after._asdict(), "due": as_text(after.due)}
        self._done("keep_study", **values)
        if after.stage is not Stage.COMPLETE:
            return _NOT_YET
        if known is not None and known.stage is Stage.COMPLETE:
            logger.info("supplement study=%s route=%s", study, to.route)
        else:
            self._done(
                "study_is_due",
                route=to.route,
                study=study,
                now=as_text(now),
                not_yet=_NOT_YET,
            )
        return as_text(now)

    def complete_studies(self, now: datetime) -> list[Study]:
        """Let the jobs of studies be done; see the protocol."""
        with self._translated():
            if not self._all("studies_due", now=as_text(now)):
                return []
        with self._transaction():
            due = [_study(row) for row in self._all("studies_due", now=as_text(now))]
            for one in due:
                names = {"route": one.route, "study": one.study_instance_uid}
                self._done("complete_study", **names, now=as_text(now))
                self._done("study_is_due", **names, now=as_text(now), not_yet=_NOT_YET)
        return due

    def gathering(self) -> list[Study]:
        """Return the studies whose jobs wait for more; see the protocol."""
        with self._translated():
            return [_study(row) for row in self._all("studies_gathering")]

    def forget_studies(self, before: datetime) -> int:
        """Forget studies that were complete; see the protocol."""
        return self._changed("forget_studies", before=as_text(before))


def _study(row: tuple[str, str, str, int, int, str]) -> Study:
    route, study, stage, count, expected, due = row
    return Study(
        route, study, Stage(stage), count, expected, datetime.fromisoformat(due)
    )

"""Commitments beside the jobs of a queue, whoever carries out the statements of SQL.

They change in one transaction with jobs. Every statement stands in a file ``.sql``.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dicom_node.commitment import Reference, Request, reason_in_words
from dicom_node.queue.commitments import (
    KEPT,
    Asked,
    Awaited,
    Known,
    Outcome,
    Settled,
    Transaction,
    judged,
    refused_again,
)
from dicom_node.queue.job import JobState
from dicom_node.queue.sql_orders import Withdrawing
from dicom_node.queue.statements import as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from dicom_node.commitment import Report
    from dicom_node.queue.commitments import Sent


class SqlCommitments(Withdrawing):
    """What all do that are kept by statements of SQL, whoever carries them out."""

    def sent(self, sent: Sequence[Sent], now: datetime, ask_at: datetime) -> list[bool]:
        """Note that destinations have instances; see the protocol."""
        with self._transaction():
            return [self._sent(one, now, ask_at) for one in sent]

    def _sent(self, sent: Sent, now: datetime, ask_at: datetime) -> bool:
        job, reference = sent.job, sent.reference
        assert reference is not None  # what is to be kept has a name
        values = {"id": job.id, "claim": job.claim, "now": as_text(now)}
        if self._done("settle_sent", **values, destination=sent.destination) != 1:
            return False
        if job.order is not None:
            self._withdraw(job.id)
        self._all("forget_asked", id=job.id)
        self._all(
            "note_sent",
            id=job.id,
            destination=sent.destination,
            study=job.study_instance_uid,
            now=as_text(now),
            due=as_text(ask_at),
            **reference._asdict(),
        )
        return True

    def due(self, destinations: Collection[str], now: datetime) -> list[str]:
        """Return who is to be asked now; see the protocol."""
        names = json.dumps(sorted(destinations))
        with self._translated():
            rows = self._all("due_to", destinations=names, now=as_text(now))
        return [name for (name,) in rows]

    def ask(
        self,
        destination: str,
        transaction_uid: str,
        now: datetime,
        again_at: datetime,
        most: int,
    ) -> Transaction | None:
        """Return what is to be asked; see the protocol."""
        with self._transaction():
            self._alone_with(f"asking {destination}")
            for (study,) in self._all("due", destination=destination, now=as_text(now)):
                rows = self._all(
                    "to_ask",
                    destination=destination,
                    study=study,
                    now=as_text(now),
                    most=most,
                )
                for job_id, _, _, number in rows:
                    values = {"id": job_id, "number": number}
                    self._all("note_asked", transaction_uid=transaction_uid, **values)
                    self._all("forget_earlier", **values, kept=KEPT)
                    self._all("asked", id=job_id, due=as_text(again_at))
                references = dict.fromkeys(Reference(*row[1:3]) for row in rows)
                request = Request(transaction_uid, tuple(references))
                return Transaction(destination, request, max(r[3] for r in rows))
        return None

    def put_off(self, transaction_uid: str, until: datetime, reason: str = "") -> None:
        """Ask again, but not before ``until``; see the protocol."""
        with self._transaction():
            self._all(
                "put_off",
                transaction_uid=transaction_uid,
                due=as_text(until),
                reason=reason,
            )

    def reported(
        self,
        report: Report,
        destinations: Collection[str],
        now: datetime,
        again_at: Callable[[int], datetime | None],
    ) -> Outcome:
        """Settle what is promised; see the protocol."""
        committed: list[Settled] = []
        again = held = 0
        with self._transaction():
            for reference in report.committed:
                for job_id, instance_id, _ in self._asked_for(
                    report.transaction_uid, reference, destinations
                ):
                    self._settle(job_id, now)
                    committed.append(Settled(instance_id))
            for failure in report.failed:
                why = reason_in_words(failure.reason)
                for job_id, _, refusals in self._asked_for(
                    report.transaction_uid, failure.reference, destinations
                ):
                    when = again_at(refusals + 1)
                    reason = f"its destination will not keep it: {why}"
                    if when is None:
                        reason = refused_again(refusals + 1, why)
                    self._refuse(job_id, refusals + 1, when or now, reason, when)
                    again += when is not None
                    held += when is None
        return Outcome(tuple(committed), again, held)

    def _asked_for(
        self, transaction_uid: str, reference: Reference, destinations: Collection[str]
    ) -> list[tuple[int, int, int]]:
        """Return job, instance and refusals of what a transaction asks for."""
        rows = self._all(
            "asked_for", transaction_uid=transaction_uid, **reference._asdict()
        )
        return [tuple(row[:3]) for row in rows if row[3] in destinations]

    def _settle(self, job_id: int, now: datetime) -> None:
        self._all("committed", id=job_id, now=as_text(now))
        self._all("forget_asked", id=job_id)
        self._all("forget", id=job_id)

    def _refuse(
        self,
        job_id: int,
        refusals: int,
        not_before: datetime,
        reason: str,
        when: datetime | None,
    ) -> None:
        self._all("refused", id=job_id, refusals=refusals, reason=reason)
        self._all("forget_asked", id=job_id)
        self._all(
            "put_back",
            id=job_id,
            state=JobState.HELD if when is None else JobState.WAITING,
            not_before=as_text(not_before),
            reason=reason,
        )

    def give_up(self, asked: Collection[str], now: datetime) -> list[Settled]:
        """Settle what is not asked for any more; see the protocol."""
        with self._transaction():
            rows = self._all("not_asked", asked=json.dumps(sorted(asked)))
            for job_id, _ in rows:
                self._settle(job_id, now)
            self._all("forget_stale_asked")
            self._all("forget_stale")
        return [Settled(instance_id) for _, instance_id in rows]

    def awaited(self) -> list[Awaited]:
        """Return what is not promised yet, by destination."""
        with self._translated():
            return [
                Awaited(destination, count, datetime.fromisoformat(since), asks, reason)
                for destination, count, since, asks, reason in self._all("awaited")
            ]

    def take(self, peer: str, request: Request, now: datetime, most: int) -> bool:
        """Note that a peer asks us; see the protocol."""
        with self._transaction():
            named = {"peer": peer, "transaction_uid": request.transaction_uid}
            ((count,),) = self._all("count_requests", **named)
            if count >= most:
                return False
            self._all(
                "take",
                **named,
                instances=json.dumps(request.references),
                now=as_text(now),
            )
        return True

    def peers_to_tell(self, now: datetime) -> list[str]:
        """Return who is to be told something now."""
        with self._translated():
            return [peer for (peer,) in self._all("peers_to_tell", now=as_text(now))]

    def to_tell(self, peer: str, now: datetime) -> Asked | None:
        """Return what a peer is to be told now, if anything."""
        with self._translated():
            rows = self._all("to_tell", peer=peer, now=as_text(now))
        return _asked(rows[0]) if rows else None

    def told(self, asked: Asked) -> None:
        """Forget what a peer asked: it was told."""
        with self._transaction():
            self._all("told", id=asked.id)

    def tell_later(self, asked: Asked, not_before: datetime, reason: str) -> None:
        """Try again to tell a peer."""
        with self._transaction():
            self._all(
                "tell_later", id=asked.id, not_before=as_text(not_before), reason=reason
            )

    def untold(self) -> list[Asked]:
        """Return everything that peers have asked and were not told."""
        with self._translated():
            return [_asked(row) for row in self._all("untold")]

    def against(
        self, references: Iterable[Reference], is_kept: Callable[[str], bool]
    ) -> list[int | None]:
        """Return of each instance why it is not safe here; see the protocol."""
        with self._translated():
            return [
                judged(
                    one,
                    [
                        Known(sop_class, file, JobState(state), reason)
                        for sop_class, file, state, reason in self._all(
                            "known", sop_instance_uid=one.sop_instance_uid
                        )
                    ],
                    is_kept,
                )
                for one in references
            ]


def _asked(row: Sequence[Any]) -> Asked:
    number, peer, transaction_uid, instances, attempts, reason = row
    references = tuple(Reference(*one) for one in json.loads(instances))
    return Asked(number, peer, Request(transaction_uid, references), attempts, reason)

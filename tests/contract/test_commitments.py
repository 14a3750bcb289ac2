"""What every memory of commitments keeps, in memory and on disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from dicom_node.commitment import (
    CLASS_CONFLICT,
    NO_SUCH_INSTANCE,
    PROCESSING_FAILURE,
    Failure,
    Reference,
    Report,
    Request,
)
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.commitments import KEPT, Commitments, Sent
from dicom_node.queue.history import History
from dicom_node.queue.job import Job, JobState
from dicom_node.queue.memory import MemoryQueue
from dicom_node.queue.memory_commitments import MemoryCommitments
from dicom_node.queue.order import BROKEN_GLASS, Order
from dicom_node.queue.postgres import PostgresQueue
from dicom_node.queue.postgres_commitments import PostgresCommitments
from dicom_node.queue.protocol import Queue
from dicom_node.queue.sqlite import SqliteQueue
from dicom_node.queue.sqlite_commitments import SqliteCommitments
from dicom_node.web.overview import totals_of

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
CT = "1.2.840.10008.5.1.4.1.1.2"


class Both(NamedTuple):
    queue: Queue
    commitments: Commitments


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Both]:
    if request.param == "memory":
        queue = MemoryQueue()
        yield Both(queue, MemoryCommitments(queue))
        return
    if request.param == "postgres":
        place = request.getfixturevalue("place")
        with (
            closing(PostgresQueue(place)) as served,
            closing(PostgresCommitments(place)) as noted,
        ):
            yield Both(served, noted)
        return
    file = tmp_path / "queue.sqlite"
    on_disk, commitments = SqliteQueue(file), SqliteCommitments(file)
    yield Both(on_disk, commitments)
    commitments.close()
    on_disk.close()


def arrival(uid: str = "1.1", study: str = "1", digest: bytes = b"d") -> Arrival:
    name = f"{uid}{digest.decode()}.dcm"
    return Arrival(uid, digest, name, study, sop_class_uid=CT)


def claimed(both: Both, uid: str = "1.1", study: str = "1", to: str = "pacs") -> Job:
    both.queue.add(arrival(uid, study), [Owed("route", to)], NOON)
    job = both.queue.claim(NOON, MINUTE)
    assert job is not None
    return job


def marked(uid: str) -> Reference:
    """As an instance is sent, under a UID of its own."""
    return Reference(CT, f"9.{uid}")


def sent(both: Both, *uids: str, study: str = "1", to: str = "pacs") -> list[Job]:
    jobs = [claimed(both, uid, study, to) for uid in uids]
    noted = [Sent(job, to, marked(job.sop_instance_uid)) for job in jobs]
    assert both.commitments.sent(noted, NOON, NOON + MINUTE) == [True] * len(jobs)
    return jobs


def report(*uids: str, under: str = "7.1", failed: tuple[str, ...] = ()) -> Report:
    return Report(
        under,
        tuple(marked(uid) for uid in uids),
        tuple(Failure(marked(uid), NO_SUCH_INSTANCE) for uid in failed),
    )


def twice(refusals: int) -> datetime | None:
    return NOON + 5 * MINUTE if refusals <= 2 else None


def ask(both: Both, under: str = "7.1", now: datetime = NOON + MINUTE) -> list[str]:
    due = both.commitments.due(["pacs", "other", "member"], now)
    if not due:
        return []
    to = max(due)
    transaction = both.commitments.ask(to, under, now, now + 9 * MINUTE, 500)
    assert transaction is not None
    assert transaction.request.transaction_uid == under
    return [one.sop_instance_uid for one in transaction.request.references]


def test_what_is_not_promised_keeps_its_file(both: Both) -> None:
    (job,) = sent(both, "1.1")
    assert both.queue.forget_sent([job]) == []
    assert both.queue.counts()[JobState.UNCOMMITTED] == 1
    assert both.queue.owed() == {"route": 1}
    assert both.queue.claim(NOON + timedelta(days=9), MINUTE) is None
    # Nor is it sent again because it comes in again, or beside other bytes.
    both.queue.add(arrival(), [Owed("route", "pacs")], NOON, NOON - MINUTE)
    both.queue.add(arrival(digest=b"x"), [Owed("route", "pacs")], NOON, NOON - MINUTE)
    assert both.queue.claim(NOON + timedelta(days=9), MINUTE) is None
    assert both.queue.counts()[JobState.QUARANTINED] == 1


ORDER = Order("Dr. Who", "trauma", NOON)


def ordered(both: Both) -> Job:
    """A job that is sent as it came, by order, and not promised yet."""
    both.queue.add(arrival(), [Owed("route", "pacs", 5)], NOON)
    assert both.queue.break_glass(1, ORDER)
    job = both.queue.claim(NOON, MINUTE)
    assert job is not None
    assert (job.order, job.priority) == (ORDER, BROKEN_GLASS)
    noted = [Sent(job, "pacs", marked("1.1"))]
    assert both.commitments.sent(noted, NOON, NOON + MINUTE) == [True]
    assert ask(both) == ["9.1.1"]
    return job


@pytest.mark.parametrize("is_held", [False, True])
def test_an_order_is_over_though_its_sending_is_refused_later(
    both: Both, *, is_held: bool
) -> None:
    job = ordered(both)
    when = None if is_held else NOON
    both.commitments.reported(report(failed=("1.1",)), ["pacs"], NOON, lambda _: when)
    if is_held:
        assert both.queue.release(job.id, NOON)
    again = both.queue.claim(NOON, MINUTE)
    assert again is not None
    assert (again.order, again.priority) == (None, 5)


def test_what_left_by_order_is_noted_as_that_once_it_is_promised(both: Both) -> None:
    ordered(both)
    both.commitments.reported(report("1.1"), ["pacs"], NOON, twice)
    assert noted(both.queue) == [("pacs", "break-glass")]


def test_the_member_of_a_pool_is_noted_once_it_promises(both: Both) -> None:
    job = claimed(both, to="pool")
    both.commitments.sent([Sent(job, "member", marked("1.1"))], NOON, NOON + MINUTE)
    assert ask(both) == ["9.1.1"]
    both.commitments.reported(report("1.1"), ["member"], NOON, twice)
    assert noted(both.queue) == [("member", "pass")]


def noted(queue: Queue) -> list[tuple[str, str]]:
    """To whom things went, and as what."""
    notes, found = queue.notes(), []
    while notes.take("b", NOON + MINUTE, NOON + MINUTE):
        batch = notes.taken()
        assert batch is not None
        found += [(one.peer, one.action) for one in batch[1] if one.kind == "sent"]
        notes.forget("b")
    return found


def test_orders_that_an_earlier_version_left_open_are_over(tmp_path: Path) -> None:
    file = tmp_path / "queue.sqlite"
    with closing(SqliteQueue(file)) as queue:
        with closing(SqliteCommitments(file)) as commitments:
            both = Both(queue, commitments)
            ordered(both)
            again = commitments.reported(
                report(failed=("1.1",)), ["pacs"], NOON, lambda _: NOON
            )
            assert again.again == 1
        queue.add(arrival("1.2"), [Owed("route", "pacs")], NOON)
        assert queue.break_glass(2, ORDER)
        with closing(sqlite3.connect(file)) as database, database:
            database.execute(
                "INSERT INTO glass (job_id, by, why, at, priority)"
                " VALUES (1, 'Dr. Who', 'trauma', ?, 5)",
                (NOON.isoformat(),),
            )
            database.execute("UPDATE job SET priority = 1000000 WHERE id = 1")
        SqliteCommitments(file).close()
        jobs = [queue.claim(NOON, MINUTE) for _ in range(2)]
        assert [job and (job.id, job.order, job.priority) for job in jobs] == [
            (2, ORDER, BROKEN_GLASS),
            (1, None, 5),
        ]


def test_people_are_told_since_when_nothing_is_promised(tmp_path: Path) -> None:
    file = tmp_path / "queue.sqlite"
    with closing(SqliteQueue(file)) as queue, closing(SqliteCommitments(file)) as noted:
        sent(Both(queue, noted), "1.1", "1.2")
        with closing(History(file)) as history:
            assert history.unpromised() == {("route", "pacs"): NOON}
            events, stands = history.events(), history.stands()
    totals = {name: count for name, count, _ in totals_of(events, stands)}
    assert (totals["received"], totals["not promised"]) == (2, 2)


def test_what_is_promised_is_settled(both: Both) -> None:
    (job,) = sent(both, "1.1")
    assert ask(both, now=NOON) == []
    assert ask(both) == ["9.1.1"]
    outcome = both.commitments.reported(report("1.1"), ["pacs"], NOON, twice)
    assert [one.instance_id for one in outcome.committed] == [job.instance_id]
    assert both.queue.counts()[JobState.SENT] == 1
    assert both.queue.forget_sent(outcome.committed) == ["1.1d.dcm"]
    assert both.commitments.awaited() == []
    # The same again is nothing new.
    again = both.commitments.reported(report("1.1"), ["pacs"], NOON, twice)
    assert again == ((), 0, 0)


def test_who_lost_a_claim_notes_nothing(both: Both) -> None:
    late = claimed(both)
    assert both.queue.claim(NOON + 2 * MINUTE, MINUTE) is not None
    noted = [Sent(late, "pacs", marked("1.1"))]
    assert both.commitments.sent(noted, NOON, NOON) == [False]
    assert both.commitments.awaited() == []


def test_a_study_is_asked_for_together(both: Both) -> None:
    sent(both, "1.1", "1.2")
    sent(both, "2.1", study="2")
    sent(both, "3.1", to="other")
    assert ask(both, "7.1") == ["9.1.1", "9.1.2"]
    assert ask(both, "7.2") == ["9.2.1"]
    assert ask(both, "7.3") == ["9.3.1"]
    assert ask(both, "7.4") == []


def test_what_is_not_answered_is_asked_again_and_either_answer_counts(
    both: Both,
) -> None:
    sent(both, "1.1", "1.2")
    ask(both, "7.1")
    later = NOON + 11 * MINUTE
    assert ask(both, "7.2", later) == ["9.1.1", "9.1.2"]
    (awaited,) = both.commitments.awaited()
    assert awaited[:2] == ("pacs", 2)
    assert (awaited.since, awaited.asks) == (NOON, 2)
    both.commitments.reported(report("1.1", under="7.1"), ["pacs"], later, twice)
    both.commitments.reported(report("1.2", under="7.2"), ["pacs"], later, twice)
    assert both.queue.counts()[JobState.SENT] == 2


def test_an_archive_that_never_answers_fills_no_disk(
    both: Both, tmp_path: Path
) -> None:
    sent(both, "1.1")
    moment = NOON
    for number in range(20):
        moment += 10 * MINUTE
        assert ask(both, f"7.{number}", moment) == ["9.1.1"]
    late = report("1.1", under=f"7.{19 - KEPT}")
    assert both.commitments.reported(late, ["pacs"], moment, twice).committed == ()
    if isinstance(both.commitments, SqliteCommitments):
        with closing(sqlite3.connect(tmp_path / "queue.sqlite")) as file:
            (rows,) = file.execute("SELECT count(*) FROM commitment_asked").fetchone()
        assert rows == KEPT
    good = report("1.1", under=f"7.{20 - KEPT}")
    assert len(both.commitments.reported(good, ["pacs"], moment, twice).committed) == 1


def test_what_an_earlier_version_has_asked_is_understood(tmp_path: Path) -> None:
    file = tmp_path / "queue.sqlite"
    with closing(SqliteQueue(file)) as queue, closing(SqliteCommitments(file)) as first:
        sent(Both(queue, first), "1.1")
        assert first.ask("pacs", "7.1", NOON + MINUTE, NOON + 9 * MINUTE, 5) is not None
        with closing(sqlite3.connect(file)) as earlier:
            earlier.execute("ALTER TABLE commitment_asked DROP COLUMN number")
        with closing(SqliteCommitments(file)) as again:
            told = again.reported(report("1.1"), ["pacs"], NOON, twice)
    assert len(told.committed) == 1


def test_what_could_not_be_asked_is_put_off(both: Both) -> None:
    sent(both, "1.1")
    ask(both, "7.1")
    both.commitments.put_off("7.1", NOON + 20 * MINUTE, "nobody there")
    assert both.commitments.awaited()[0].reason == "nobody there"
    assert ask(both, "7.2", NOON + 19 * MINUTE) == []
    assert ask(both, "7.2", NOON + 20 * MINUTE) == ["9.1.1"]


@pytest.mark.parametrize(
    ("told", "by"),
    [
        (report("1.1", under="7.9"), "pacs"),
        (report("1.1"), "other"),
        (report("1.2"), "pacs"),
        (Report("7.1", (Reference("1.2.3", "9.1.1"),), ()), "pacs"),
        (report(under="7.9", failed=("1.1",)), "pacs"),
    ],
    ids=[
        "another transaction",
        "another's word",
        "another instance",
        "class",
        "failed",
    ],
)
def test_what_was_not_asked_changes_nothing(both: Both, told: Report, by: str) -> None:
    sent(both, "1.1")
    ask(both, "7.1")
    assert both.commitments.reported(told, [by], NOON, twice) == ((), 0, 0)
    assert both.queue.counts()[JobState.UNCOMMITTED] == 1


def test_what_is_refused_is_sent_again_a_few_times_and_then_held(both: Both) -> None:
    sent(both, "1.1", "1.2")
    moment, job = NOON + MINUTE, None
    for refusals in (1, 2, 3):
        ask(both, f"7.{refusals}", moment)
        told = report(
            *(["1.2"] * (refusals == 1)), under=f"7.{refusals}", failed=("1.1",)
        )
        outcome = both.commitments.reported(told, ["pacs"], moment, twice)
        assert (outcome.again, outcome.held) == (int(refusals < 3), int(refusals == 3))
        assert len(outcome.committed) == int(refusals == 1)
        if refusals == 3:
            break
        assert both.queue.claim(NOON + 4 * MINUTE, MINUTE) is None
        job = both.queue.claim(NOON + 6 * MINUTE, MINUTE)
        assert job is not None
        assert job.attempts == 1
        # The files are there all the while, and a late answer to before counts no more.
        assert "1.1d.dcm" in both.queue.files()
        late = report("1.1", under=f"7.{refusals}")
        assert both.commitments.reported(late, ["pacs"], moment, twice).committed == ()
        moment += 9 * MINUTE
        noted = [Sent(job, "pacs", marked("1.1"))]
        assert both.commitments.sent(noted, moment, moment) == [True]
    (held,) = both.queue.held()
    assert "took it 3 times and will not keep it: 0x0112" in held.reason


def test_who_is_not_asked_any_more_has_it_by_its_word(both: Both) -> None:
    (job, *_) = sent(both, "1.1"), sent(both, "2.1", to="other")
    given_up = both.commitments.give_up(["other"], NOON)
    assert [one.instance_id for one in given_up] == [job[0].instance_id]
    assert both.queue.counts()[JobState.SENT] == 1
    assert [one.destination for one in both.commitments.awaited()] == ["other"]


def test_peers_are_told_once_and_until_they_have_heard(both: Both) -> None:
    commitments = both.commitments
    first = Request("5.1", (Reference(CT, "1.1"), Reference(CT, "1.2")))
    other = Request("5.2", (Reference(CT, "1.3"),))
    assert commitments.take("CT1", first, NOON, most=2)
    assert commitments.take("CT1", other, NOON, most=2)
    assert not commitments.take("CT1", Request("5.3", other.references), NOON, most=2)
    assert commitments.take("CT2", first, NOON + MINUTE, most=2)
    assert commitments.peers_to_tell(NOON) == ["CT1"]
    asked = commitments.to_tell("CT1", NOON)
    assert asked is not None
    assert (asked.peer, asked.request, asked.attempts) == ("CT1", first, 0)
    commitments.tell_later(asked, NOON + 9 * MINUTE, "nobody there")
    second = commitments.to_tell("CT1", NOON)
    assert second is not None
    assert second.request == other
    commitments.told(second)
    assert commitments.peers_to_tell(NOON) == []
    assert commitments.to_tell("CT1", NOON) is None
    assert commitments.peers_to_tell(NOON + MINUTE) == ["CT2"]
    later = commitments.to_tell("CT2", NOON + MINUTE)
    assert later is not None
    assert later.peer == "CT2"
    commitments.told(later)
    again = commitments.to_tell("CT1", NOON + 9 * MINUTE)
    assert again is not None
    assert (again.peer, again.attempts, again.reason) == ("CT1", 1, "nobody there")
    assert commitments.untold() == [again]


def test_the_same_request_again_is_one(both: Both) -> None:
    request = Request("5.1", (Reference(CT, "1.1"),))
    for _ in range(3):
        assert both.commitments.take("CT1", request, NOON, most=2)
    assert len(both.commitments.untold()) == 1


def test_what_is_asked_again_has_a_place_however_many_wait(both: Both) -> None:
    requests = [Request(f"5.{n}", (Reference(CT, "1.1"),)) for n in range(3)]
    taken = [both.commitments.take("CT1", r, NOON, most=2) for r in requests]
    assert taken == [True, True, False]
    assert both.commitments.take("CT1", requests[0], NOON + MINUTE, most=2)
    assert len(both.commitments.untold()) == 2


def test_who_has_much_due_hides_nobody(both: Both) -> None:
    for number in range(9):
        sent(both, f"1.{number}", study=f"{number}")
    sent(both, "2.1", study="x", to="other")
    soon = NOON + MINUTE
    assert both.commitments.due(["other", "pacs", "third"], NOON) == []
    assert both.commitments.due(["other", "pacs", "third"], soon) == ["other", "pacs"]
    asked = both.commitments.ask("other", "7.1", soon, soon + MINUTE, 500)
    assert asked is not None
    assert asked.request.references == (marked("2.1"),)
    assert both.commitments.due(["other", "pacs"], soon) == ["pacs"]
    assert both.commitments.ask("other", "7.2", soon, soon + MINUTE, 500) is None


def safe(
    both: Both, uid: str = "1.1", sop_class: str = CT, *, there: bool = True
) -> object:
    reference = Reference(sop_class, uid)
    (reason,) = both.commitments.against([reference], lambda _: there)
    return reason


def test_a_peer_is_told_what_is_so(both: Both) -> None:
    assert safe(both) == NO_SUCH_INSTANCE
    job = claimed(both)
    assert safe(both) is None
    assert safe(both, there=False) == NO_SUCH_INSTANCE
    assert safe(both, sop_class="1.2.3") == CLASS_CONFLICT
    both.queue.hold(job, "no mark was found")
    assert safe(both) is None
    both.queue.add(arrival(digest=b"x"), [Owed("route", "pacs")], NOON)
    assert safe(both) == PROCESSING_FAILURE


def test_what_was_delivered_is_safe_and_what_was_dropped_is_not(both: Both) -> None:
    delivered, dropped = claimed(both, "1.1"), claimed(both, "1.2")
    both.queue.sent([delivered], NOON)
    both.queue.dropped(dropped, "no picture")
    both.queue.forget_sent()
    assert safe(both, "1.1", there=False) is None
    assert safe(both, "1.1", sop_class="1.2.3") == CLASS_CONFLICT
    assert safe(both, "1.2") == NO_SUCH_INSTANCE


def test_what_came_in_under_an_earlier_version_has_any_class(both: Both) -> None:
    both.queue.add(Arrival("1.1", b"d", "a.dcm"), [Owed("route", "pacs")], NOON)
    assert safe(both) is None


def test_what_is_open_is_there_after_a_crash(tmp_path: Path) -> None:
    file = tmp_path / "queue.sqlite"
    queue, commitments = SqliteQueue(file), SqliteCommitments(file)
    sent(Both(queue, commitments), "1.1")
    assert (
        commitments.ask("pacs", "7.1", NOON + MINUTE, NOON + 9 * MINUTE, 5) is not None
    )
    # Killed after it was noted, and nobody knows whether it was asked.
    again = SqliteCommitments(file)
    assert again.ask("pacs", "7.2", NOON + 8 * MINUTE, NOON + 20 * MINUTE, 5) is None
    assert (
        again.ask("pacs", "7.2", NOON + 9 * MINUTE, NOON + 20 * MINUTE, 5) is not None
    )
    outcome = again.reported(report("1.1", under="7.1"), ["pacs"], NOON, twice)
    assert len(outcome.committed) == 1
    for one in (again, commitments, queue):
        one.close()

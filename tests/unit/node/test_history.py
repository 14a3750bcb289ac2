"""What people are shown of a queue is what happened, and costs no more as it grows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.history import History, Search, slot_of
from dicom_node.queue.job import JobState
from dicom_node.queue.sqlite import SqliteQueue

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
RESEARCH = Owed("to research", "research")
ARCHIVE = Owed("to the archive", "archive")


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[SqliteQueue]:
    made = SqliteQueue(tmp_path / "queue.sqlite")
    yield made
    made.close()


@pytest.fixture
def history(tmp_path: Path, queue: SqliteQueue) -> Iterator[History]:
    assert queue
    made = History(tmp_path / "queue.sqlite")
    yield made
    made.close()


def arrival(number: int, study: str = "1.2.9", calling: str = "CT1") -> Arrival:
    return Arrival(
        f"1.2.{number}",
        number.to_bytes(32, "big"),
        f"{number}.dcm",
        study,
        calling,
    )


def times(history: History) -> dict[tuple[str, str], int]:
    return {(one.what, one.destination): one.times for one in history.events()}


def stands(history: History) -> dict[tuple[str, JobState], int]:
    return {(one.destination, one.state): one.jobs for one in history.stands()}


def test_what_happens_to_an_instance_is_told_in_order(
    queue: SqliteQueue, history: History
) -> None:
    queue.add(arrival(1), [RESEARCH], NOON)
    job = queue.claim(NOON, MINUTE)
    assert job is not None
    queue.keep_filtered(job, "1.out.dcm", "mark research")
    queue.retry(job, NOON + MINUTE, "it was away")
    job = queue.claim(NOON + MINUTE, MINUTE)
    assert job is not None
    queue.hold(job, "it said no")
    assert queue.release(job.id, NOON)
    job = queue.claim(NOON + MINUTE, MINUTE)
    assert job is not None
    assert queue.sent([job], NOON + 2 * MINUTE) == [True]
    told = [(step.what, step.about) for step in history.steps(job.instance_id)]
    assert told == [
        ("received", "CT1"),
        ("owed", ""),
        ("begun", ""),
        ("ready", "mark research"),
        ("put back", "it was away"),
        ("begun", ""),
        ("held", "it said no"),
        ("released", ""),
        ("begun", ""),
        ("sent", ""),
    ]
    assert stands(history) == {("research", JobState.SENT): 1}
    assert times(history) == {
        ("received", ""): 1,
        ("owed", "research"): 1,
        ("mark ready", "research"): 1,
        ("failed", "research"): 1,
        ("held", "research"): 1,
        ("sent marked", "research"): 1,
    }
    assert history.pace(NOON - MINUTE) == {
        "received": {slot_of(NOON): 1},
        "sent": {slot_of(NOON): 1},
    }


def test_totals_are_what_counting_gives(queue: SqliteQueue, history: History) -> None:
    for number in range(6):
        queue.add(arrival(number), [RESEARCH, ARCHIVE], NOON + number * MINUTE)
    for end in (queue.hold, queue.quarantine, queue.dropped):
        job = queue.claim(NOON + 9 * MINUTE, MINUTE)
        assert job is not None
        end(job, "because")
    counted: dict[JobState, int] = dict.fromkeys(JobState, 0)
    for one in history.stands():
        counted[one.state] += one.jobs
    assert counted == queue.counts()


def test_the_oldest_on_its_way_is_told_by_destination(
    queue: SqliteQueue, history: History
) -> None:
    queue.add(arrival(1), [RESEARCH], NOON)
    queue.add(arrival(2), [RESEARCH, ARCHIVE], NOON + MINUTE)
    assert history.oldest() == {RESEARCH[:2]: NOON, ARCHIVE[:2]: NOON + MINUTE}
    job = queue.claim(NOON + MINUTE, MINUTE)
    assert job is not None
    assert queue.hold(job, "no")  # waits for a person, and is not on its way
    assert history.oldest()[RESEARCH[:2]] == NOON + MINUTE


@pytest.mark.parametrize(
    ("search", "numbers"),
    [
        (Search(), [3, 2, 1]),
        (Search(uid="1.2.2"), [2]),
        (Search(uid="1.2.9"), [2, 1]),
        (Search(uid="1.2"), []),  # a part of one names nobody
        (Search(calling_ae_title="MR1"), [3]),
        (Search(destinations=("archive",)), [3]),
        (Search(destinations=("archive", "research")), [3, 2, 1]),
        (Search(route="to research", state="waiting"), [2, 1]),
        (Search(uid="1.2.1", state="sent"), []),
        (Search(uid="' OR 1 = 1 --"), []),
    ],
    ids=str,
)
def test_jobs_are_found(
    queue: SqliteQueue, history: History, search: Search, numbers: list[int]
) -> None:
    queue.add(arrival(1), [RESEARCH], NOON)
    queue.add(arrival(2), [RESEARCH], NOON)
    queue.add(arrival(3, "1.2.8", "MR1"), [ARCHIVE], NOON)
    assert [job.id for job in history.found(search, 10)] == numbers
    assert [job.id for job in history.found(search, 1)] == numbers[:1]
    older = [job.id for job in history.found(search, 10, before=3)]
    assert older == [number for number in numbers if number < 3]


def test_it_can_change_nothing(history: History) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        history._database.execute("DELETE FROM job")


def test_what_is_deleted_stays_counted_and_leaves_no_steps(
    tmp_path: Path, queue: SqliteQueue, history: History
) -> None:
    queue.add(arrival(1), [RESEARCH], NOON)
    with sqlite3.connect(tmp_path / "queue.sqlite") as database:
        database.execute("DELETE FROM job")
        database.execute("DELETE FROM instance")
    assert history.stands() == []
    assert times(history)["received", ""] == 1
    assert history.steps(1) == []


def test_a_queue_of_an_earlier_version_tells_what_it_knows(tmp_path: Path) -> None:
    queue = SqliteQueue(tmp_path / "queue.sqlite")
    queue.add(arrival(1), [RESEARCH], NOON)
    queue.add(arrival(2), [RESEARCH], NOON)
    job = queue.claim(NOON, MINUTE)
    assert job is not None
    queue.sent([job], NOON)
    queue.close()
    with sqlite3.connect(tmp_path / "queue.sqlite") as database:
        for kind, name in database.execute(
            "SELECT type, name FROM sqlite_master WHERE name IN ('event', 'pace', 'step')"
            " OR (type = 'trigger' AND sql NOT LIKE '%INTO total%')"
        ).fetchall():
            database.execute(f"DROP {kind} {name}")
    SqliteQueue(tmp_path / "queue.sqlite").close()
    history = History(tmp_path / "queue.sqlite")
    assert stands(history) == {
        ("research", JobState.SENT): 1,
        ("research", JobState.WAITING): 1,
    }
    assert times(history)["sent as it came", "research"] == 1
    assert [step.what for step in history.steps(2)] == ["received"]
    history.close()


def test_no_question_of_the_first_page_goes_through_all_jobs(
    queue: SqliteQueue, history: History
) -> None:
    """The database is asked how it would find out: never by going through a table."""
    assert queue
    asked: list[str] = []
    history._database.set_trace_callback(asked.append)
    history.stands()
    history.events()
    history.oldest()
    history.pace(NOON)
    history.found(Search(), 20)
    history.found(Search(uid="1.2.3"), 20)
    history.found(Search(calling_ae_title="CT1"), 20)
    history.found(Search(route="to research", state="held"), 20)
    history.found(Search(destinations=("research",), state="sent"), 20)
    history.found(Search(route="to research"), 20, before=100)
    history._database.set_trace_callback(None)
    plans = [
        (statement, str(row[3]))
        for statement in asked
        for row in history._database.execute(f"EXPLAIN QUERY PLAN {statement}")
    ]
    walked = [
        (statement, plan)
        for statement, plan in plans
        if plan.startswith(("SCAN job", "SCAN instance")) and "LIMIT" not in statement
    ]
    sorted_whole = [
        (statement, plan)
        for statement, plan in plans
        if plan == "USE TEMP B-TREE FOR ORDER BY"
        and ":uid" not in statement
        and "uid = " not in statement
    ]
    assert len(asked) == 10
    assert walked == []
    assert sorted_whole == []
